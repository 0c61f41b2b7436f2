"""Checksums of uploads in parts: what a client says of each part, and what is said of the whole in the end.

COMPOSITE: the checksum of the parts' checksums, `<base64>-<parts>`; FULL_OBJECT: that of the bytes, as if they had come in one piece.
Pure but for the running checksum it makes. Source: S3's public description of checking object integrity.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.gateway import checksums
from services.gateway.errors import AwsError
from services.gateway.message import Call

ALGORITHMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
CRCS = frozenset({"crc32", "crc32c", "crc64nvme"})
"""Checksums that there can be of the whole: of hashes there is none without all bytes in a row."""
COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"
HEADER = "x-amz-checksum-"
KEPT = f":{HEADER}"
"""In front of an algorithm: how the index keeps a checksum beside metadata."""
KEPT_TYPE = ":checksum-type"
_WANTED, _WANTED_TYPE = ":upload-checksum-algorithm", ":upload-checksum-type"
MINE = frozenset({_WANTED, _WANTED_TYPE})
"""What the index keeps of an upload only until it is complete."""


@dataclass(frozen=True)
class Wish:
    """What a client wants of an upload; an empty algorithm: nothing."""

    algorithm: str = ""
    type: str = ""

    @classmethod
    def of_request(cls, call: Call) -> Wish:
        """Of CreateMultipartUpload. Raises AwsError(InvalidRequest)."""
        algorithm, type = call.header("x-amz-checksum-algorithm").lower(), call.header("x-amz-checksum-type").upper()
        if not algorithm and not type:
            return cls()
        if algorithm not in ALGORITHMS:
            message = f"Checksum algorithm provided is unsupported. Please try again with any of {', '.join(ALGORITHMS).upper()}"
            raise AwsError("InvalidRequest", message)
        type = type or (FULL_OBJECT if algorithm == "crc64nvme" else COMPOSITE)
        impossible = (algorithm == "crc64nvme" and type == COMPOSITE) or (algorithm not in CRCS and type == FULL_OBJECT)
        if impossible or type not in (COMPOSITE, FULL_OBJECT):
            message = f"The {type} checksum type cannot be used with the {algorithm} checksum algorithm."
            raise AwsError("InvalidRequest", message)
        return cls(algorithm, type)

    @classmethod
    def kept(cls, metadata: Mapping[str, str]) -> Wish:
        return cls(metadata.get(_WANTED, ""), metadata.get(_WANTED_TYPE, ""))

    def to_keep(self) -> dict[str, str]:
        return {_WANTED: self.algorithm, _WANTED_TYPE: self.type} if self.algorithm else {}

    def headers(self) -> dict[str, str]:
        """As CreateMultipartUpload answers."""
        if not self.algorithm:
            return {}
        return {"x-amz-checksum-algorithm": self.algorithm.upper(), "x-amz-checksum-type": self.type}


class Whole:
    """The checksum of an upload that is being completed."""

    def __init__(self, wish: Wish, parts: Sequence[Mapping[str, str]]) -> None:
        """`parts`: what the index keeps of each chosen part."""
        self._wish, self._parts = wish, [part.get(f"{KEPT}{wish.algorithm}", "") for part in parts]
        self._running = checksums.new(wish.algorithm) if wish.type == FULL_OBJECT else None

    def update(self, data: bytes) -> None:
        """Bytes of the object, in their order."""
        if self._running is not None:
            self._running.update(data)

    def value(self) -> str:
        """Once all bytes have gone by; empty where none was wanted, or a part came without."""
        if self._running is not None:
            return checksums.encoded(self._running)
        if not self._wish.algorithm or not all(self._parts):
            return ""
        made = checksums.new(self._wish.algorithm)
        for part in self._parts:
            made.update(base64.b64decode(part))
        return f"{checksums.encoded(made)}-{len(self._parts)}"

    def check(self, call: Call) -> None:
        """Raises AwsError(BadDigest) where the client says another one of the whole."""
        said, made = call.header(f"{HEADER}{self._wish.algorithm}") if self._wish.algorithm else "", self.value()
        if said and made and said.partition("-")[0] != made.partition("-")[0]:
            raise AwsError(
                "BadDigest", f"The {self._wish.algorithm} you specified did not match the calculated checksum."
            )

    def to_keep(self) -> dict[str, str]:
        """For the index, beside the object's metadata."""
        value = self.value()
        return {f"{KEPT}{self._wish.algorithm}": value, KEPT_TYPE: self._wish.type} if value else {}

    def told(self) -> list[tuple[str, str]]:
        """As CompleteMultipartUpload answers."""
        value = self.value()
        return [(member(self._wish.algorithm), value), ("ChecksumType", self._wish.type)] if value else []


def member(algorithm: str) -> str:
    """`crc32` → ChecksumCRC32."""
    return f"Checksum{algorithm.upper()}"


def of_part(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """What ListParts tells of a part's checksums."""
    return [(member(name.removeprefix(KEPT)), value) for name, value in metadata.items() if name.startswith(KEPT)]


def agrees(metadata: Mapping[str, str], listed: Mapping[str, str]) -> bool:
    """Whether a part has the checksums that CompleteMultipartUpload lists for it; one that is not known is passed over."""
    known = dict(of_part(metadata))
    return all(known.get(name, value) == value for name, value in listed.items())
