"""NATS: connecting, subjects, the event envelope, streams and buckets, credentials, the hub's and the leaf's server.

Knows no service and no edge process. Import from the modules themselves; this file stays empty so that a process loads
only what it uses.
"""
