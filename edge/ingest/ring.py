"""A camera's frames into its framelink ring. Knows framelink; must not know cameras.

The ring is made with the first frame, whose size it needs, and again when the size changes: readers hear that the old
one ends and connect to the new one.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange

from belvedere.chassis.logs import get_logger
from edge.ingest import direct
from edge.ingest.errors import CameraStalled
from edge.ingest.pictures import Pictures
from edge.ingest.status import RingCounts
from edge.ingest.swscale import UNSPECIFIED, Route
from framelink import FrameWriter, NoMemory, PixelFormat, WritableSlot, slot_bytes_for

if TYPE_CHECKING:
    import av

log = get_logger(__name__)

DECODERS_SLOTS = 3
"""The picture that is being decoded and two that it refers to: the usual camera refers to one. What a stream wants beyond them is
decoded elsewhere and copied.
"""
_I420, _FULL_RANGE = PixelFormat.I420, int(ColorRange.JPEG)
SLOTS_MAX = 64
"""Of a ring, those of the decoder included."""


class _Place(NamedTuple):
    """A slot as a decoder's, and as what BGR is made from."""

    room: direct.Room
    bgr: npt.NDArray[Any]
    route: Route


class CameraRing:
    """The ring of one camera at `path`; `put` from one thread, `readers` and `close` from any."""

    def __init__(self, path: Path, name: str, slots: int) -> None:
        self._path = path
        self._name = name
        self._slots = slots
        self._pictures = Pictures()
        # Late BGR is made on the writer's thread, while this one converts the next frame: each has its own converter.
        self._late_pictures = Pictures()
        self._writer: FrameWriter | None = None
        self._size = (0, 0)
        self._places: dict[int, _Place] = {}
        """By slot."""
        self._claimed: dict[int, WritableSlot] = {}
        """By the address of their pictures: those that a decoder writes into, or has written into."""
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._newest: tuple[int, av.VideoFrame] | None = None
        self._colours: dict[int, tuple[int, int]] = {}
        """By slot: of which sequence, and its colour space, which the planes do not tell."""

    def put(self, frame: av.VideoFrame, *, capture_ns: int, pts_us: int) -> tuple[int, int, bool]:
        """See `feed.FrameSink`. Raises CameraStalled where the appliance has no memory for the ring."""
        claimed = self._claimed.pop(VideoPlane(frame, 0).buffer_ptr, None) if self._claimed else None
        writer, size = self._writer, self._size
        if (
            claimed is not None
            and writer is not None
            and (frame.width, frame.height) == size
            and frame.color_range != _FULL_RANGE
        ):
            # The usual picture: it stands in its slot already, as it is to be.
            width, height = size
            slot, source, place = claimed, frame, self._places[claimed.index]
            has_bgr = writer.bgr_wanted()
            if has_bgr:
                self._pictures.copy_bgr(frame, place.bgr, place.route)
        else:
            picture = self._pictures.i420(frame)
            width, height = picture.width, picture.height
            writer = self._writer_for(width, height)
            free = writer.acquire()
            if free is None:
                return width, height, False
            slot = free
            self._pictures.copy_planes(picture, slot.planes(width, height, PixelFormat.I420))
            # From the decoded frame itself where it has the same size: what was converted once need not be so twice.
            source = frame if (frame.width, frame.height) == (width, height) else picture
            has_bgr = writer.bgr_wanted()
            if has_bgr:
                self._pictures.copy_bgr(source, slot.bgr(width, height))
        with self._lock:
            sequence = writer.publish(
                slot,
                capture_ns=capture_ns,
                pts_us=pts_us,
                width=width,
                height=height,
                format=_I420,
                has_bgr=has_bgr,
            )
            self._newest = (sequence, source)
            self._colours[slot.index] = (sequence, source.colorspace)
        return width, height, True

    def claim(self, width: int, height: int) -> direct.Room | None:
        """A slot for the picture that is about to be decoded, where the pictures of this size fit one; on the thread of `put`."""
        writer = self._writer
        if writer is None or width != self._size[0] or height < self._size[1]:
            return None
        slot = writer.acquire_kept()
        if slot is None:
            return None
        room = (self._places.get(slot.index) or self._place(writer, slot)).room
        if (room.planes[1] - room.planes[0]) // width < height + direct.SPARE_ROWS:
            room.let_go()
            return None
        self._claimed[room.planes[0]] = slot
        return room

    def _place(self, writer: FrameWriter, slot: WritableSlot) -> _Place:
        width, height = self._size
        addresses = [plane.ctypes.data for plane in slot.planes(width, height, PixelFormat.I420)]
        bgr = slot.bgr(width, height)
        first, second, third = addresses
        half = (width + 1) // 2
        # Up to the BGR picture: the rows behind the last plane are the decoder's, too.
        size = bgr.ctypes.data - first
        let_go = functools.partial(writer.let_go, slot.index)
        room = direct.Room((first, second, third), (width, half, half), size, let_go, slot.payload)
        place = self._places[slot.index] = _Place(room, bgr, Route.make(room.planes, room.strides, bgr))
        return place

    def ready(self) -> bool:
        """Readers can attach."""
        return self._writer is not None

    def wanted(self) -> bool:
        """A reader waits for a frame."""
        writer = self._writer
        return writer is not None and writer.hear()

    def wait_wanted(self, timeout_s: float) -> bool:
        """Until a reader asks (True), `wake` is called, or the time is over."""
        self._asked.clear()
        return self.wanted() or (self._asked.wait(timeout_s) and self.wanted())

    def _on_wanted(self) -> None:
        if not self._asked.is_set():  # It is asked for every frame, and hardly ever waited for.
            self._asked.set()

    def wake(self) -> None:
        """Ends `wait_wanted`; from any thread."""
        self._asked.set()

    def retire(self) -> None:
        """The newest frame is given to nobody any more."""
        writer = self._writer
        if writer is not None:
            writer.retire()
        with self._lock:
            self._newest = None

    def counts(self) -> RingCounts:
        """What the readers do."""
        writer = self._writer
        if writer is None:
            return RingCounts()
        stats = writer.stats()
        return RingCounts(
            readers=len(stats.readers),
            frames_written=stats.frames_written,
            delivered=sum(reader.delivered for reader in stats.readers),
            skipped=sum(reader.skipped for reader in stats.readers),
            held=sum(reader.held for reader in stats.readers),
            evicted=stats.evicted,
            bgr_late=stats.bgr_late,
        )

    def close(self) -> None:
        """Tell the readers that there are no more frames, and let the memory go."""
        writer, self._writer, self._newest = self._writer, None, None
        self._places.clear()
        self._claimed.clear()
        self._colours.clear()
        if writer is not None:
            writer.close()

    def _writer_for(self, width: int, height: int) -> FrameWriter:
        writer = self._writer
        if writer is not None and self._size == (width, height):
            return writer
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            writer = FrameWriter(
                self._path,
                self._name,
                slots=self._slots,
                kept=min(DECODERS_SLOTS, SLOTS_MAX - self._slots) if direct.available() else 0,
                slot_bytes=slot_bytes_for(width, height),
                make_bgr=self._make_bgr,
                on_wanted=self._on_wanted,
            )
        except NoMemory as error:
            raise CameraStalled(f"no memory on the appliance for the camera's frames: {error}") from error
        log.info("ring made", width=width, height=height, slots=self._slots)
        self._writer, self._size = writer, (width, height)
        return writer

    def _make_bgr(self, slot: WritableSlot) -> None:
        """Called by the writer, on its thread, when a reader wants the BGR of a frame that has none: the newest, or one it holds."""
        info = slot.info
        if info is None:
            raise ValueError("there is no frame in this slot")
        with self._lock:
            newest = self._newest
            sequence, colorspace = self._colours.get(slot.index, (0, UNSPECIFIED))
        planes, bgr = slot.planes(info.width, info.height, info.format), slot.bgr(info.width, info.height)
        # From the decoded frame where it is still that one: of full range, it has more levels than the planes.
        if newest is not None and newest[0] == info.sequence:
            self._late_pictures.copy_bgr(newest[1], bgr)
        else:
            known = colorspace if sequence == info.sequence else UNSPECIFIED
            self._late_pictures.planes_to_bgr(planes, known, bgr)
