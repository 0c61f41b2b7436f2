"""What many readers, large pictures and dying writers leave behind. Valid on Python 3.7, like what it tests."""

import gc
import os
import pathlib
import threading
import time

import numpy as np
import pytest

from framelink import FrameReader, NoMemory, RingAbsent, RingGone, memory, slot_bytes_for
from tests.support.interpreter import Interpreter
from tests.support.shared_memory import NumberCamera, descriptors, eventually, mapped_memfds

ATTACHMENTS = 1000
MEMORY_MAY_GROW_BYTES = 2 << 20
"""Of 1,000 attachments: Python's own arenas. A ring that stayed mapped would be 12 MB for each."""


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_readers_that_come_and_go_leave_nothing(tmp_path):
    with NumberCamera(tmp_path / "s", width=640, height=360) as camera:
        camera.publish(bgr=True)

        def attach(number):
            with FrameReader(camera.writer.path, f"reader {number}") as reader:
                frame = reader.get(30)
                assert frame.bgr()[0, 0, 0] == 1
                if number % 2:
                    frame.release()  # the others just leave

        for number in range(50):
            attach(number)
        gc.collect()
        eventually(lambda: not camera.writer.stats().readers, "the last one's leave")
        before = descriptors(), mapped_memfds(), threading.active_count()
        memory_before = resident_bytes()
        for number in range(ATTACHMENTS):
            attach(number)
        gc.collect()
        eventually(lambda: not camera.writer.stats().readers, "the last one's leave")
        eventually(lambda: (descriptors(), mapped_memfds(), threading.active_count()) == before, "the release")
        assert resident_bytes() - memory_before < MEMORY_MAY_GROW_BYTES
        stats = camera.writer.stats()
        assert (stats.malformed, stats.refused, stats.evicted) == (0, 0, 0)
        # Every slot is free again: whoever left had held one.
        kept = [FrameReader(camera.writer.path, "last") for _ in range(1)]
        for _ in range(20):
            assert camera.publish() is not None
        kept[0].close()


def test_a_4k_frame_goes_through_whole(tmp_path):
    with NumberCamera(tmp_path / "s", width=3840, height=2160, slots=3) as camera:
        reader = FrameReader(camera.writer.path, "reader")
        for number in range(1, 6):
            camera.publish(bgr=True)
            with reader.get(30) as frame:
                assert frame.bgr().shape == (2160, 3840, 3)
                assert frame.bgr()[-1, -1, -1] == number and frame.planes()[0][-1, -1] == number
        reader.close()


def test_readers_go_on_under_a_writer_that_dies_and_comes_back(tmp_path):
    path = str(tmp_path / "s")
    setup = """
from framelink import FrameWriter, PixelFormat, slot_bytes_for
def publish(value):
    slot = writer.acquire()
    slot.planes(64, 48, PixelFormat.I420)[0][...] = value
    writer.publish(slot, capture_ns=0, pts_us=0, width=64, height=48, format=PixelFormat.I420, has_bgr=False)
"""
    readers, seen = [], {}
    before = None
    for life in range(4):
        with Interpreter(setup) as other:
            other.do("writer = FrameWriter(path, 'camera', slot_bytes=slot_bytes_for(64, 48))", path=path)
            if not readers:
                readers = [FrameReader(path, f"reader {number}") for number in range(3)]
            for reader in readers:
                if life:
                    with pytest.raises(RingGone):
                        reader.get(30, bgr=False)
                    reader.reconnect(30)
                reader.request(bgr=False)
            other.do("publish(value)", value=life + 1)
            for number, reader in enumerate(readers):
                with reader.get(30, bgr=False) as frame:
                    seen.setdefault(number, []).append(
                        (int(frame.planes()[0][0, 0]), frame.info.sequence, frame.ring_id)
                    )
            other.kill()
        gc.collect()
        before = before or (descriptors(), mapped_memfds())
    eventually(lambda: (descriptors(), mapped_memfds()) == before, "the release")
    for frames in seen.values():
        assert [(value, sequence) for value, sequence, _ in frames] == [(1, 1), (2, 1), (3, 1), (4, 1)]
        assert len({ring for _, _, ring in frames}) == 4, "each writer has a ring of its own"
    for reader in readers:
        reader.close()
    with pytest.raises(RingAbsent):
        readers[0].reconnect(0.05)


def test_who_asks_after_the_newest_frame_was_retired_waits_for_the_next(tmp_path):
    asked = []
    with NumberCamera(tmp_path / "s", on_wanted=lambda: asked.append(time.monotonic())) as camera:
        assert not camera.writer.wanted()
        camera.publish()
        camera.writer.retire()
        with FrameReader(camera.writer.path, "reader") as reader:
            reader.request(bgr=False)
            eventually(lambda: asked, "the writer to hear of it")
            assert camera.writer.wanted() and reader.take() is None
            camera.publish()
            with reader.get(30, bgr=False) as frame:
                assert frame.info.sequence == 2
            assert not camera.writer.wanted()


def test_a_retired_frame_stays_its_holders(tmp_path):
    with NumberCamera(tmp_path / "s", slots=3) as camera, FrameReader(camera.writer.path, "reader") as reader:
        camera.publish()
        frame = reader.get(30, bgr=False)
        camera.writer.retire()
        for _ in range(5):
            camera.publish()
        assert np.all(frame.planes()[0] == 1) and frame.still_valid()


def test_a_ring_of_many_slots_is_refused_before_a_page_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 500 << 20)
    before = descriptors(), mapped_memfds()
    with pytest.raises(NoMemory, match="MiB are available: use fewer slots, smaller frames or more memory"):
        NumberCamera(tmp_path / "s", width=3840, height=2160, slots=16)
    assert (descriptors(), mapped_memfds()) == before
    assert not (tmp_path / "s").exists()
    assert 16 * slot_bytes_for(3840, 2160) > 500 << 20
