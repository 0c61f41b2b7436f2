"""What a process that is handed a ring can do to the others: nothing. Real processes, real attempts."""

# ruff: noqa: SIM117 (this file runs on Python 3.7, too, which has no parentheses around several contexts)

import contextlib
import mmap
import os

import numpy as np
import pytest

from framelink import FrameReader, NotSealed, RingGone, deliveries, memory
from framelink.ring import Ring
from tests.support.interpreter import Interpreter
from tests.support.shared_memory import NumberCamera, eventually

ATTACKER = """
import ctypes, errno, fcntl, mmap, os, select, socket
from framelink import sockets, wire

libc = ctypes.CDLL(None, use_errno=True)

def tried(action):
    try:
        action()
        return "done"
    except PermissionError as error:
        return "EPERM" if error.errno == errno.EPERM else "EACCES"
    except OSError as error:
        return errno.errorcode[error.errno]

def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")

def take_ring(path):
    connection = sockets.connect(path, 5)
    sockets.send(connection, wire.hello("attacker"))
    sockets.ready(connection.fileno(), select.POLLIN, 5)
    packet, descriptor = sockets.receive(connection)
    return connection, descriptor

def mprotect():
    mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    address = libc.mmap(None, size, 1, 1, fd, 0)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    check(libc.mprotect(address, size, 3))

def punch():
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    check(libc.fallocate(fd, 3, 0, 4096))

def reopened():
    again = os.open("/proc/self/fd/%d" % fd, os.O_RDWR)
    try:
        os.pwrite(again, b"x", 0)
    finally:
        os.close(again)

def truncated_by_opening():
    os.close(os.open("/proc/self/fd/%d" % fd, os.O_RDWR | os.O_TRUNC))
"""


@pytest.mark.parametrize(
    "attempt",
    [
        "os.pwrite(fd, b'x', 0)",
        "os.ftruncate(fd, 0)",
        "os.ftruncate(fd, size * 2)",
        "mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)",
        "mprotect()",
        "punch()",
        "reopened()",
        "truncated_by_opening()",
        "os.posix_fallocate(fd, size, 4096)",
        "fcntl.fcntl(fd, 1033, 0x8)",
        "os.sendfile(fd, os.open('/etc/hostname', os.O_RDONLY), 0, 8)",
    ],
)
def test_who_gets_the_ring_can_only_read_it(tmp_path, attempt):
    with NumberCamera(tmp_path / "s") as camera, Interpreter(ATTACKER) as attacker:
        camera.publish(bgr=True)
        attacker.do("connection, fd = take_ring(path); size = os.fstat(fd).st_size", path=camera.writer.path)
        assert attacker.ask(f"tried(lambda: {attempt})") in ("EPERM", "EACCES")
        with FrameReader(camera.writer.path, "honest") as honest:
            frame = honest.get(30)
            assert np.all(frame.bgr() == 1) and np.all(frame.planes()[0] == 1)


def test_a_readers_arrays_cannot_be_made_writable(tmp_path):
    with NumberCamera(tmp_path / "s") as camera, FrameReader(camera.writer.path, "reader") as reader:
        camera.publish(bgr=True)
        frame = reader.get(30)
        for array in (frame.bgr(), *frame.planes(), frame.payload()):
            with pytest.raises(ValueError):
                array[...] = 0
            with pytest.raises(ValueError):
                array.setflags(write=True)


HOARDER = """
from framelink import FrameReader
readers = [FrameReader(path, "hoarder") for _ in range(count)]
held = []
def hoard():
    # One after the other, so that each has slots that the others have not.
    reader = readers[len(held) // 2 % len(readers)]
    reader.request(bgr=False)
    frame = reader.take()
    if frame is not None:
        held.append(frame)
    return len({frame.slot for frame in held})
"""


def test_who_holds_everything_and_gives_nothing_back_is_disconnected_when_another_reader_starves(tmp_path):
    with NumberCamera(tmp_path / "s") as camera, Interpreter() as hoarder:
        hoarder.do("path = given_path; count = 3", given_path=camera.writer.path)
        hoarder.do(HOARDER)

        def everything_held():
            assert camera.publish() is not None, "the writer always has a slot"
            return hoarder.ask("hoard()") == 6

        eventually(everything_held, "the hoarding")
        for _ in range(10):  # Nothing newer than what they hold is left to give.
            camera.publish()
        with FrameReader(camera.writer.path, "honest") as honest:
            camera.publish()
            assert honest.get(10, bgr=False).info.sequence > 0
            assert camera.writer.stats().evicted >= 1
            assert camera.writer.stats().dropped_no_slot == 0


def test_who_is_asked_for_a_slot_and_gives_it_back_stays(tmp_path):
    with NumberCamera(tmp_path / "s", slots=3) as camera:
        with FrameReader(camera.writer.path, "generous") as generous, FrameReader(camera.writer.path, "other") as other:
            camera.publish()
            held = generous.get(30, bgr=False)
            camera.publish()
            other.request(bgr=False)
            eventually(lambda: (generous.take(), generous.pressed)[1] == {held.info.sequence}, "the asking")
            held.release()
            assert other.get(30, bgr=False).info.sequence == 2
            assert camera.writer.stats().evicted == 0
            camera.publish()
            assert not generous.pressed


def test_many_who_keep_their_slots_are_asked_side_by_side_so_that_nobody_waits_for_each_of_them(tmp_path, monkeypatch):
    # Nobody is thrown out: who would ask the second only after the first has answered or is gone would ask only one.
    monkeypatch.setattr(deliveries, "PRESS_GRACE_S", 600.0)
    with NumberCamera(tmp_path / "s", slots=8) as camera, contextlib.ExitStack() as stack:
        keepers = [stack.enter_context(FrameReader(camera.writer.path, name)) for name in "abcdef"]
        held = []
        for keeper in keepers:
            camera.publish()
            held.append(keeper.get(30, bgr=False))
        camera.publish()  # nobody holds this one, and none of the slots that may be given out is left for it
        innocent = stack.enter_context(FrameReader(camera.writer.path, "innocent"))
        innocent.request(bgr=False)

        def asked():
            assert [keeper.take() for keeper in keepers] == [None] * len(keepers)
            return [keeper.pressed for keeper in keepers] == [{frame.info.sequence} for frame in held]

        eventually(asked, "the asking of all of them")
        assert camera.writer.stats().evicted == 0
        assert innocent.take() is None
        held[3].release()
        assert innocent.get(30, bgr=False).info.sequence == 7
        assert not any(reader.waiting for reader in camera.writer.stats().readers)


def test_a_killed_reader_frees_its_slots(tmp_path):
    with NumberCamera(tmp_path / "s") as camera, Interpreter() as other:
        other.do("path = given_path; count = 1", given_path=camera.writer.path)
        other.do(HOARDER)
        eventually(lambda: (camera.publish(), other.ask("hoard()"))[1] >= 3, "the hoarding")
        assert camera.reader("hoarder").held >= 3
        other.kill()
        eventually(lambda: camera.reader("hoarder") is None, "the noticing")
        with FrameReader(camera.writer.path, "honest") as honest:
            camera.publish()
            assert honest.get(30, bgr=False).info.sequence > 0


def test_a_stopped_reader_does_not_slow_the_others(tmp_path):
    with NumberCamera(tmp_path / "s") as camera, Interpreter("from framelink import FrameReader") as other:
        other.do("reader = FrameReader(path, 'stopped'); reader.request(bgr=False)", path=camera.writer.path)
        other.stop()
        with FrameReader(camera.writer.path, "honest") as honest:
            for _ in range(100):
                assert camera.publish() is not None
                honest.get(30, bgr=False).release()
        assert camera.reader("stopped").delivered == 1


def test_a_forked_child_cannot_give_back_what_its_parent_holds(tmp_path):
    with NumberCamera(tmp_path / "s") as camera, Interpreter("from framelink import FrameReader; import os") as other:
        other.do("reader = FrameReader(path, 'parent')", path=camera.writer.path)
        camera.publish()
        other.do("frame = reader.get(30, bgr=False)")
        # The child ends the ordinary way: everything it has is torn down.
        other.do(
            "child = os.fork()\n"
            "if child == 0:\n"
            "    frame.release()\n"
            "    del frame\n"
            "    os._exit(0)\n"
            "os.waitpid(child, 0)"
        )
        camera.publish()
        assert other.ask("reader.get(30, bgr=False).info.sequence") == 2
        assert other.ask("frame.held and frame.still_valid()")
        assert camera.reader("parent").held >= 1 and camera.writer.stats().malformed == 0


WRITER = """
import time
from framelink import FrameWriter, PixelFormat, slot_bytes_for
def publish():
    slot = writer.acquire()
    slot.planes(64, 48, PixelFormat.I420)[0][...] = 7
    return writer.publish(
        slot, capture_ns=0, pts_us=0, width=64, height=48, format=PixelFormat.I420, has_bgr=False
    )
"""


def test_a_killed_writer_is_noticed_and_its_frames_stay_readable(tmp_path):
    path = str(tmp_path / "s")
    with Interpreter(WRITER) as other:
        other.do("writer = FrameWriter(path, 'camera', slot_bytes=slot_bytes_for(64, 48))", path=path)
        with FrameReader(path, "reader") as reader:
            other.ask("publish()")
            frame = reader.get(30)
            other.kill()
            with pytest.raises(RingGone):
                reader.get(30)
            assert np.all(frame.planes()[0] == 7)
            with NumberCamera(path) as camera:
                reader.reconnect(30)
                camera.publish()
                assert reader.get(30, bgr=False).info.sequence == 1


def _memfd(size, seals, holes=False):
    descriptor = memory.memfd_create("test")
    os.ftruncate(descriptor, size)
    if not holes:
        os.posix_fallocate(descriptor, 0, size)
    mapping = mmap.mmap(descriptor, size)
    memory.fcntl.fcntl(descriptor, memory.F_ADD_SEALS, seals)
    return descriptor, mapping


@pytest.mark.parametrize(
    "missing", [memory.F_SEAL_SHRINK, memory.F_SEAL_GROW, memory.F_SEAL_FUTURE_WRITE, memory.F_SEAL_SEAL]
)
def test_memory_that_lacks_a_seal_is_not_mapped(missing):
    size = 1 << 16
    descriptor, _mapping = _memfd(size, memory.SEALS & ~missing)
    with pytest.raises(NotSealed, match="seals"):
        Ring.open(descriptor, 1, size - 4096, 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_memory_with_holes_or_of_another_size_is_not_mapped():
    size = 1 << 20
    descriptor, _mapping = _memfd(size, memory.SEALS, holes=True)
    with pytest.raises(NotSealed, match="holes"):
        memory.open_sealed(descriptor, size)
    os.close(descriptor)
    descriptor, _mapping = _memfd(size, memory.SEALS)
    with pytest.raises(NotSealed, match="long"):
        memory.open_sealed(descriptor, size * 2)
    os.close(descriptor)


def test_what_is_no_memfd_is_not_mapped(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1 << 16))
    for path in (str(tmp_path / "file"), "/dev/zero"):
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(NotSealed):
            memory.open_sealed(descriptor, 1 << 16)
        os.close(descriptor)
