"""Archives as they come to registration: `tar_gz({"panorama/app.py": b"…"})`."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Mapping


def tar_gz(
    files: Mapping[str, bytes],
    more: Callable[[tarfile.TarFile], None] | None = None,
    *,
    compresslevel: int = 6,
    format: int = tarfile.PAX_FORMAT,
) -> bytes:
    """These files, and what `more` adds. The same bytes for the same files."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if more is not None:
            more(archive)
    return gzip.compress(plain.getvalue(), compresslevel, mtime=0)
