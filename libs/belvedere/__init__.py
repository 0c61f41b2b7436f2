"""Belvedere: the library and the command line."""
