"""Cameras made of numbers, and a look at what processes keep of shared memory. Real FrameWriters. Valid on Python 3.7."""

import pathlib
import select
import time

from framelink import FrameWriter, PixelFormat, slot_bytes_for

WAIT_S = 30.0
"""For things that happen at once, on a machine with other things to do."""


class NumberCamera:
    """A FrameWriter whose frame `n` is grey with luma `n % 251`, and has the same number in its BGR picture."""

    def __init__(self, path, name="camera", width=64, height=48, make_bgr=True, **options):
        self.width, self.height = width, height
        self.writer = FrameWriter(
            str(path),
            name,
            slot_bytes=slot_bytes_for(width, height),
            make_bgr=self._make_bgr if make_bgr else None,
            **options,
        )
        self.late = []
        """Sequences of frames whose BGR was made on demand."""

    def publish(self, bgr=False, capture_ns=None):
        """One frame; None where the writer has no slot."""
        slot = self.writer.acquire()
        if slot is None:
            return None
        number = self.writer.stats().frames_written + 1
        for plane in slot.planes(self.width, self.height, PixelFormat.I420):
            plane[...] = 128
        slot.planes(self.width, self.height, PixelFormat.I420)[0][...] = number % 251
        if bgr:
            slot.bgr(self.width, self.height)[...] = number % 251
        return self.writer.publish(
            slot,
            capture_ns=time.monotonic_ns() if capture_ns is None else capture_ns,
            pts_us=number * 40000,
            width=self.width,
            height=self.height,
            format=PixelFormat.I420,
            has_bgr=bgr,
        )

    def _make_bgr(self, slot):
        self.late.append(slot.info.sequence)
        slot.bgr(self.width, self.height)[...] = slot.info.sequence % 251

    def reader(self, name):
        """The statistics of one reader; None where there is none of this name."""
        return next((reader for reader in self.writer.stats().readers if reader.name == name), None)

    def close(self):
        self.writer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def eventually(condition, what="it", timeout_s=WAIT_S):
    """Wait until another process or thread has done its part, which no descriptor tells us of."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:.0f} s"
        select.select([], [], [], 0.01)


def descriptors():
    """How many descriptors this process has open."""
    return sum(1 for _ in pathlib.Path("/proc/self/fd").iterdir())


def mapped_memfds(pid="self"):
    """How many mappings of memfds a process has."""
    with pathlib.Path(f"/proc/{pid}/maps").open() as lines:
        return sum("/memfd:" in line for line in lines)
