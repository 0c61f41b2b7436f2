"""Belvedere: the library and the command line."""

__version__ = "0.1.0"
"""Of the distribution, and the software version that appliances report."""
