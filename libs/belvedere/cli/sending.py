"""Files of packages to their bucket: container archives as parcels (`belvedere.chunks.parcel`), so that of a changed line
only the changed chunks leave this machine; everything else whole.

Which chunks a bucket has is remembered beside the archives, and never trusted: registration says so where one is not
there, and the whole archive follows. Blocking, as boto3 is.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from belvedere.chunks import ArchiveInvalid
from belvedere.chunks.parcel import SUFFIX, write_parcel

DIGEST_BYTES = 32


class Sender:
    """Sends to one bucket; `place` names it among all there are."""

    def __init__(self, s3: Any, assets: Path, place: str) -> None:
        self._s3 = s3
        self._memory = assets / f".sent-{hashlib.sha256(place.encode()).hexdigest()[:16]}"
        self._known = self._remembered()
        self._digests: set[str] = set()
        self._parcels: list[tuple[str, str, Path]] = []

    def send(self, bucket: str, key: str, path: Path, *, archive: bool) -> bool:
        """Whether it was not there yet. `archive`: of a container."""
        if self._exists(bucket, key) or (archive and self._exists(bucket, key + SUFFIX)):
            return False
        if not archive or not self._send_parcel(bucket, key, path):
            self._s3.upload_file(str(path), bucket, key)
        return True

    def send_whole(self) -> bool:
        """What went as parcels goes whole after all; False where nothing did."""
        for bucket, key, path in self._parcels:
            self._s3.upload_file(str(path), bucket, key)
            self._s3.delete_object(Bucket=bucket, Key=key + SUFFIX)
        sent, self._parcels = bool(self._parcels), []
        self._known = set()
        return sent

    def remember(self) -> None:
        """What was sent is registered: the bucket has these chunks."""
        if not self._digests <= self._known:
            digests = sorted(self._known | self._digests)
            self._memory.write_bytes(b"".join(map(bytes.fromhex, digests)))

    def _send_parcel(self, bucket: str, key: str, path: Path) -> bool:
        with tempfile.NamedTemporaryFile(prefix="parcel-", dir=self._memory.parent) as parcel:
            try:
                digests = write_parcel(path, Path(parcel.name), self._known)
            except ArchiveInvalid:
                return False  # registration says what is wrong with it
            self._s3.upload_file(parcel.name, bucket, key + SUFFIX)
        self._digests |= digests
        self._parcels.append((bucket, key, path))
        return True

    def _remembered(self) -> set[str]:
        try:
            data = self._memory.read_bytes()
        except FileNotFoundError:
            return set()
        return {data[at : at + DIGEST_BYTES].hex() for at in range(0, len(data) - DIGEST_BYTES + 1, DIGEST_BYTES)}

    def _exists(self, bucket: str, key: str) -> bool:
        try:
            self._s3.head_object(Bucket=bucket, Key=key)
        except self._s3.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True
