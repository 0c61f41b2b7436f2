"""Pixels of a frame that an application holds in its camera's ring, by the frame's name. Must not know models.

The ring is mapped for reading and its connection closed again: nobody here waits for frames, so that a camera that no
application reads is not kept at work, and no slot is ever held. Who names a ring has been given it: its number is
random, and known only to those whom the camera's writer let in.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from belvedere.chassis.logs import get_logger
from belvedere.chassis.paths import short_name
from edge.inference.errors import FrameGone
from edge.inference.tensors import Array
from framelink import FramelinkError, FrameName, FrameReader

log = get_logger(__name__)

NAME = "inference"
# The writer is there: an application reads it. It answers at once, or is hung.
CONNECT_TIMEOUT_S = 1.0
# A ring nobody has asked for as long is let go: its memory is freed when its writer and readers have gone as well.
UNUSED_S = 10.0


class FrameSource:
    """The cameras' rings below `folder`, as `EdgePaths.camera_socket` lays them out. From any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._readers: dict[str, tuple[FrameReader, float]] = {}

    @contextlib.contextmanager
    def pixels(self, name: FrameName) -> Iterator[Array]:
        """(height, width, 3) uint8, blue first, straight from the ring. Raises FrameGone: also at the end of the block,
        where the frame was overwritten in the midst of it.
        """
        reader = self._reader(name)
        frame = reader.view(name.slot, name.sequence, name.ring_id)
        if frame is None or not frame.info.has_bgr:
            raise FrameGone(f"frame {name.sequence} of {name.camera_id} is not in its ring any more; send its pixels")
        yield frame.bgr()
        if not frame.still_valid():
            raise FrameGone(f"frame {name.sequence} of {name.camera_id} was overwritten meanwhile; send its pixels")

    def tend(self) -> None:
        """Let go of rings that nobody asks for. To be called now and then."""
        oldest = time.monotonic() - UNUSED_S
        with self._lock:
            for camera_id in [camera for camera, (_, used) in self._readers.items() if used < oldest]:
                del self._readers[camera_id]

    def _reader(self, name: FrameName) -> FrameReader:
        with self._lock:
            known = self._readers.get(name.camera_id)
            if known is None or known[0].ring_id != name.ring_id:
                known = (self._opened(name.camera_id), 0.0)
            self._readers[name.camera_id] = (known[0], time.monotonic())
            return known[0]

    def _opened(self, camera_id: str) -> FrameReader:
        if not camera_id or "/" in camera_id or camera_id in (".", ".."):
            raise FrameGone(f"`{camera_id[:80]}` is no camera's name")
        try:
            reader = FrameReader(
                self._folder / short_name(camera_id) / "frames.sock", NAME, connect_timeout_s=CONNECT_TIMEOUT_S
            )
        except (FramelinkError, OSError) as error:
            raise FrameGone(f"the ring of {camera_id} cannot be opened ({error}); send the pixels") from error
        reader.close()
        return reader
