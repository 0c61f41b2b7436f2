"""PyAV's own FFmpeg libraries as they are loaded into this process, for the few functions of them that PyAV does not pass on."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import av


@functools.cache
def loaded(name: str) -> ctypes.CDLL | None:
    """`libavcodec`, say; None where it cannot be told which one is PyAV's (OpenCV brings some of its own), or /proc is hidden."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    found = {line.split(maxsplit=5)[5] for line in lines if name in line}
    # A wheel's libraries lie beside its package, in av.libs; PyAV of a distribution uses the system's.
    beside = str(Path(av.__file__).parent.parent / "av.libs")
    paths = [path for path in found if path.startswith(beside)] or list(found)
    return ctypes.CDLL(paths[0]) if len(paths) == 1 else None
