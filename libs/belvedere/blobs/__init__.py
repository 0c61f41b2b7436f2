"""Content-addressed blobs over obstore: a folder now, any S3 by URL.

    blobs = BlobStore.at(Path("data/blobs"))
    blob = await blobs.put_stream(chunks)                     # Blob(digest="sha256:…", size_bytes=…)
    async for chunk in blobs.open(blob.digest, 0, 1024): …

Knows digests and bytes; names, owners and buckets are packages' business.
"""

from belvedere.blobs.ages import Amount
from belvedere.blobs.errors import BadDigest, BlobError, BlobNotFound, DigestMismatch, StoreFailed
from belvedere.blobs.store import Blob, BlobStore, digest_of

__all__ = [
    "Amount",
    "BadDigest",
    "Blob",
    "BlobError",
    "BlobNotFound",
    "BlobStore",
    "DigestMismatch",
    "StoreFailed",
    "digest_of",
]
