"""How chunks travel: `POST /chunks`, a body of digests (32 bytes each), an answer of as many records in their order.

A record is a length (4 bytes, big-endian) and as many bytes of a Zstandard frame; ABSENT as length: it is not there.
One request carries many chunks, so that round trips stay few.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from belvedere.chunks.errors import DocumentInvalid

CHUNKS_PER_REQUEST = 1024
"""At most; 32 KiB of request, some 30 MB of answer."""
LENGTH = struct.Struct(">I")
ABSENT = 0xFFFFFFFF
_DIGEST_BYTES = 32


def pack_digests(digests: Iterable[str]) -> bytes:
    """A request's body, of hexadecimal digests."""
    return b"".join(map(bytes.fromhex, digests))


def unpack_digests(body: bytes) -> list[str]:
    """The hexadecimal digests of a request. Raises DocumentInvalid."""
    if not body or len(body) % _DIGEST_BYTES or len(body) > CHUNKS_PER_REQUEST * _DIGEST_BYTES:
        raise DocumentInvalid(
            f"the body is 1 to {CHUNKS_PER_REQUEST} SHA-256 digests of {_DIGEST_BYTES} bytes: this has {len(body)}"
        )
    return [body[at : at + _DIGEST_BYTES].hex() for at in range(0, len(body), _DIGEST_BYTES)]


def pack(frame: bytes | None) -> bytes:
    """A record of an answer; None: absent."""
    return LENGTH.pack(ABSENT) if frame is None else LENGTH.pack(len(frame)) + frame
