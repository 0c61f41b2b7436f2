"""Camera streams become frames: one process a camera, one connection, one decode, whatever the number of applications.

Knows cameras, PyAV and framelink. Must not know applications, models, or why a camera is wanted.
"""
