"""Model import: what appliances can't load is converted to ONNX when its package is registered, each framework in an
environment of its own, in a sandbox. docs/models.md is for users.

Knows files, descriptors and processes. Must not know the API, the database or where blobs lie.
"""
