"""What can go wrong with a blob.

BlobError
├── BadDigest        the text is no digest (`sha256:` and 64 hexadecimal digits)
├── BlobNotFound     there is no blob of this digest
├── DigestMismatch   the bytes are not those that were announced; nothing was stored
└── StoreFailed      the folder or object store did not do what was asked: full, read-only, away
"""


class BlobError(Exception):
    """Base of everything the blob store raises."""


class BadDigest(BlobError):
    """The text is no digest."""


class BlobNotFound(BlobError):
    """There is no blob of this digest."""


class DigestMismatch(BlobError):
    """The bytes that came are not those of the expected digest."""


class StoreFailed(BlobError):
    """The store behind it failed; the message carries its words."""
