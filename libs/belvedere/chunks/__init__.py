"""Assets as chunks, cut where their content says and named by their digests: what did not change is not moved again.

    AssetRoot    the document that an asset's digest is of: what the asset is, and the chunks it is put together from
    Entry        a line of a tree's index: a folder, a file with its chunks, or a link

A container archive becomes a tree: its index (which is chunked itself) names each file's chunks. A model stays the file
it is. So digest → root → index → chunks can be checked step by step by who trusts the first, and a changed line of code
changes one chunk of a file, one of the index, and the root.

Here is what both sides read: documents, without I/O. `making` cuts (cloud), `store` keeps (cloud).
"""

from belvedere.chunks.documents import (
    INDEX_BYTES_MAX,
    AssetRoot,
    Chunk,
    Entry,
    Kind,
    decode_index,
    encode_entry,
)
from belvedere.chunks.errors import ArchiveInvalid, ChunkAbsent, ChunkError, DocumentInvalid
from belvedere.chunks.wire import CHUNKS_PER_REQUEST, pack, pack_digests, unpack_digests

__all__ = [
    "CHUNKS_PER_REQUEST",
    "INDEX_BYTES_MAX",
    "ArchiveInvalid",
    "AssetRoot",
    "Chunk",
    "ChunkAbsent",
    "ChunkError",
    "DocumentInvalid",
    "Entry",
    "Kind",
    "decode_index",
    "encode_entry",
    "pack",
    "pack_digests",
    "unpack_digests",
]
