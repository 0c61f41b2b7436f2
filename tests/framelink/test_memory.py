"""Memory that does not fit is refused; memory that was used is given back."""

# ruff: noqa: SIM117 (this file runs on Python 3.7, too, which has no parentheses around several contexts)

import functools
import gc
import os

import numpy as np
import pytest

from framelink import (
    Annotations,
    CallClient,
    CallServer,
    FrameReader,
    FrameWriter,
    NoMemory,
    OutputReceiver,
    OutputSender,
    PixelPicture,
    memory,
)
from tests.support.interpreter import Interpreter
from tests.support.shared_memory import NumberCamera, descriptors, eventually, mapped_memfds


def test_a_ring_that_does_not_fit_is_refused_with_what_to_do(tmp_path):
    before = descriptors()
    with pytest.raises(NoMemory, match="fewer"):
        FrameWriter(str(tmp_path / "s"), "camera", slots=64, slot_bytes=1 << 40)
    assert descriptors() == before
    assert not (tmp_path / "s").exists()


def test_memory_is_refused_before_the_machine_runs_out_of_it(monkeypatch):
    monkeypatch.setattr(memory, "_machine_available", lambda: 100 << 20)
    with pytest.raises(NoMemory, match="100 MiB are available"):
        memory.create("test", 50 << 20)
    monkeypatch.setattr(memory, "_machine_available", lambda: None)
    monkeypatch.setattr(memory, "_cgroup_available", lambda: 70 << 20)
    with pytest.raises(NoMemory, match="70 MiB"):
        memory.create("test", 20 << 20)


def test_what_a_control_group_still_grants_is_its_limit_less_what_is_used_and_not_cache(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("800\n")
    (tmp_path / "memory.stat").write_text("anon 300\nactive_file 100\ninactive_file 50\nshmem 350\n")
    assert memory._cgroup_granted(str(tmp_path)) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup_granted(str(tmp_path)) is None


def test_this_machine_tells_how_much_is_available():
    assert memory.available_bytes() > 0


def test_old_pythons_make_the_same_memory(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor, mapping = memory.create("test", 1 << 16)
    assert len(memory.open_sealed(descriptor, 1 << 16)) == len(mapping)
    os.close(descriptor)


def test_nothing_is_left_of_writers_and_readers(tmp_path):
    gc.collect()
    before = descriptors(), mapped_memfds()
    for _ in range(5):
        with NumberCamera(tmp_path / "s") as camera, FrameReader(camera.writer.path, "reader") as reader:
            camera.publish(bgr=True)
            frame = reader.get(30)
            frame.bgr()
            frame.release()
        del camera, reader, frame
    gc.collect()
    eventually(lambda: (descriptors(), mapped_memfds()) == before, "the release")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_calls_and_outputs(tmp_path):
    gc.collect()
    picture = PixelPicture("s", np.zeros((480, 640, 3), np.uint8), 0)
    before = descriptors(), mapped_memfds()
    for _ in range(3):
        calls, outputs = str(tmp_path / "c"), str(tmp_path / "o")
        with CallServer(calls, lambda request: request.reply(request.inputs), name="server"):
            with CallClient(calls, "client") as client:
                for size in (10, 100000, 1000000):
                    client.call("m", {"x": np.zeros(size)}, 10)
        with OutputReceiver(outputs, lambda output: output.done(), lambda camera_id: None):
            with OutputSender(outputs, "instance", "out") as sender:
                eventually(functools.partial(sender.put, picture, Annotations()), "the connection")
    gc.collect()
    eventually(lambda: (descriptors(), mapped_memfds()) == before, "the release")
    assert list(tmp_path.iterdir()) == []


def test_a_reply_in_its_owners_hands_needs_no_shared_memory(tmp_path):
    before = mapped_memfds()
    with CallServer(str(tmp_path / "c"), lambda request: request.reply({"y": np.ones(9)}), name="server"):
        with CallClient(str(tmp_path / "c"), "client") as client:
            kept = client.call("m", {"x": np.zeros(9)}, 10)
    gc.collect()
    eventually(lambda: mapped_memfds() == before, "the release")
    kept["y"][0] = 5
    assert kept["y"].sum() == 13


def test_the_memory_of_a_killed_writer_goes_with_its_last_reader(tmp_path):
    before = mapped_memfds()
    with Interpreter("from framelink import FrameWriter") as other:
        other.do("writer = FrameWriter(path, 'camera', slot_bytes=4096)", path=str(tmp_path / "s"))
        reader = FrameReader(str(tmp_path / "s"), "reader")
        assert mapped_memfds() == before + 1
        other.kill()
    reader.close()
    del reader
    gc.collect()
    assert mapped_memfds() == before
