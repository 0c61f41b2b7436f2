"""A camera's ring and an application that shows its frames with boxes: what feeds the display in tests. Real
framelink, in threads.

    with Showing(paths, "camera-1", "instance-1", 640, 360) as app:
        app.rects = [(0.25, 0.25, 0.5, 0.5)]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from belvedere.chassis.paths import EdgePaths
from framelink import (
    Annotations,
    FramelinkError,
    FramePicture,
    FrameReader,
    FrameTimeout,
    FrameWriter,
    OutputSender,
    PixelFormat,
    PixelPicture,
    slot_bytes_for,
)

GREY = 128


class Showing:
    """Publishes grey frames to a camera's ring and hands each, as an application would, to the display."""

    def __init__(
        self,
        paths: EdgePaths,
        camera_id: str,
        instance_id: str,
        width: int = 640,
        height: int = 360,
        *,
        fps: float = 20,
        own_pixels: bool = False,
        node: str = "people",
        stream_id: str = "front_camera",
        noisy: bool = False,
        rects: Sequence[tuple[float, float, float, float]] = (),
        labels: Sequence[tuple[str, float, float]] = (),
    ) -> None:
        """`noisy`: pictures that no encoder can make small. `rects`, `labels`: on every picture, from the first one on."""
        self.rects = list(rects)
        self.labels = list(labels)
        self.put = 0
        self.paused = threading.Event()
        self._camera_id, self._size, self._fps = camera_id, (width, height), fps
        self._own_pixels, self._stream_id = own_pixels, stream_id
        self._noise = np.random.default_rng(1) if noisy else None
        path = paths.camera_socket(camera_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = FrameWriter(path, camera_id, slots=8, slot_bytes=slot_bytes_for(width, height))
        self._reader = FrameReader(path, "app")
        self._sender = OutputSender(paths.display_socket(instance_id), instance_id, node)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._film, self._show)]

    def __enter__(self) -> Showing:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)
        self._sender.close()
        self._reader.close()
        self._writer.close()

    @property
    def in_flight(self) -> int:
        """Pictures that the display has not given back."""
        self._sender.collect()
        return self._sender.stats().in_flight

    def _film(self) -> None:
        width, height = self._size
        while not self._stop.wait(1 / self._fps):
            slot = None if self.paused.is_set() else self._writer.acquire()
            if slot is None:
                continue
            for plane in slot.planes(width, height, PixelFormat.I420):
                plane[:] = GREY if self._noise is None else self._noise.integers(60, 200, plane.shape, np.uint8)
            self._writer.publish(
                slot,
                capture_ns=time.monotonic_ns(),
                pts_us=time.monotonic_ns() // 1000,
                width=width,
                height=height,
                format=PixelFormat.I420,
                has_bgr=False,
            )

    def _show(self) -> None:
        width, height = self._size
        pixels = np.full((height, width, 3), GREY, np.uint8)
        while not self._stop.is_set():
            try:
                frame = self._reader.get(0.2, bgr=False)
            except FrameTimeout:
                continue
            except FramelinkError:
                return
            notes = Annotations(tuple(self.rects), tuple(self.labels))
            if self._own_pixels:
                self._sender.put(PixelPicture(self._stream_id, pixels, frame.info.capture_ns), notes)
                frame.release()
            else:
                self._sender.put(FramePicture(self._camera_id, self._stream_id, frame), notes)
            self.put += 1
