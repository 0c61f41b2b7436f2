"""BGR of frames that were given out without it: made in their slots when somebody looks, once, for everybody."""

import threading

import numpy as np
import pytest

from framelink import FrameReader, RingGone, late_bgr, wire
from tests.support.interpreter import Interpreter
from tests.support.shared_memory import NumberCamera, eventually

LUMA_1 = 0
"""What the reader's own conversion makes of luma 1 (less than black); the camera's BGR of frame 1 is 1."""


@pytest.fixture
def camera(tmp_path):
    with NumberCamera(tmp_path / "s") as camera:
        yield camera


@pytest.fixture
def reader(camera):
    with FrameReader(camera.writer.path, "reader", connect_timeout_s=30) as reader:
        yield reader


def test_a_frame_taken_without_bgr_has_it_made_by_its_writer_when_it_is_looked_at(camera, reader):
    camera.publish()
    frame = reader.get(30, bgr=False)
    assert not frame.info.has_bgr and camera.late == []
    assert np.all(frame.bgr() == 1) and frame.info.has_bgr
    assert np.all(frame.bgr() == 1) and camera.late == [1], "once"
    assert camera.writer.stats().bgr_late == 1
    assert not frame.bgr().flags.writeable


def test_an_older_frame_that_is_held_still_has_its_own(camera, reader):
    camera.publish()
    frame = reader.get(30, bgr=False)
    for _ in range(20):
        camera.publish()
    assert frame.make_bgr() and np.all(frame.bgr() == 1)
    assert camera.late == [1]


def test_what_one_reader_has_made_all_have_who_hold_the_slot_or_look_into_it_or_get_it_later(camera, reader):
    with FrameReader(camera.writer.path, "planes only") as another, FrameReader(camera.writer.path, "late") as late:
        camera.publish()
        frame, others = reader.get(30, bgr=False), another.get(5, bgr=False)
        frame.bgr()
        assert not others.info.has_bgr, "its notice was of before"
        assert np.all(others.bgr() == 1) and others.info.has_bgr
        assert np.all(late.get(30, bgr=True).bgr() == 1)
        seen = late.view(frame.slot, frame.info.sequence, frame.ring_id)
        assert seen.info.has_bgr and np.all(seen.bgr() == 1)
    assert camera.late == [1]


def test_who_looks_at_planes_only_costs_no_bgr_while_another_asks_for_that_of_its_frames(camera, reader):
    with FrameReader(camera.writer.path, "planes only") as another:
        for number in range(1, 10):
            camera.publish()
            with reader.get(30, bgr=False) as frame, another.get(5, bgr=False) as others:
                assert others.planes()[0][0, 0] == number
                if number % 3 == 0:
                    assert np.all(frame.bgr() == number)
    assert camera.late == [3, 6, 9]


def test_readers_that_wait_for_bgr_get_the_newest_frame_whatever_older_one_is_made_meanwhile(camera, reader):
    camera.publish()
    held = reader.get(30, bgr=False)
    camera.publish()
    with FrameReader(camera.writer.path, "another") as another:
        another.request(bgr=True)
        assert held.make_bgr()
        assert another.get(30).info.sequence == 2
    assert sorted(camera.late) == [1, 2]


def test_several_threads_that_look_at_one_frame_have_it_made_once(camera, reader):
    camera.publish()
    frame, seen = reader.get(30, bgr=False), []
    threads = [threading.Thread(target=lambda: seen.append(int(frame.bgr().max()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 8 and camera.late == [1]


def test_a_frame_is_made_while_another_thread_waits_for_the_next_one(camera, reader):
    camera.publish()
    frame, got = reader.get(30, bgr=False), []
    thread = threading.Thread(target=lambda: got.append(reader.get(30, bgr=False).info.sequence))
    thread.start()
    eventually(lambda: camera.reader("reader").waiting, "the waiting")
    assert frame.make_bgr()
    camera.publish()
    thread.join()
    assert got == [2]


def test_whose_messages_wait_for_the_next_frame_has_bgr_at_once(camera, reader):
    """The owner hears this reader itself, with its next frame: which does not come here."""
    reader.request(bgr=False)
    eventually(camera.writer.hear, "the request")
    camera.publish()
    assert reader.get(30, bgr=False).make_bgr()


def test_the_connection_for_questions_is_no_reader(camera, reader):
    camera.publish()
    frame = reader.get(30, bgr=False)
    frame.bgr()
    assert [one.name for one in camera.writer.stats().readers] == ["reader"]
    reader.close()
    eventually(lambda: not camera.writer._peers, "the end of both connections")


def test_a_frame_that_was_given_back_is_not_asked_for(camera, reader):
    camera.publish()
    frame = reader.get(30, bgr=False)
    frame.release()
    assert not frame.make_bgr() and np.all(frame.bgr() == LUMA_1)
    assert camera.late == []


def test_a_name_that_is_of_no_frame_is_answered_and_nothing_is_made(camera, reader):
    camera.publish()
    held = reader.get(30, bgr=False)
    asking = late_bgr.LateBgr(camera.writer.path, "asking", reader.ring_id)
    assert not asking.made(held.slot, 2), "its slot holds another frame"
    assert not asking.made(held.slot + 1, 0) and not asking.made(4000, 1), "nothing is there"
    stranger = late_bgr.LateBgr(camera.writer.path, "stranger", reader.ring_id + 1)
    assert not stranger.made(held.slot, 1), "of another ring"
    assert camera.late == []
    assert asking.made(held.slot, 1), "and the connection goes on"
    asking.close()
    stranger.close()
    assert camera.writer.stats().malformed == 0


def test_a_slot_that_moves_on_before_it_is_made_is_left_alone(camera, reader):
    """Asked for by its name, held by nobody."""
    camera.publish()
    frame = reader.get(30, bgr=False)
    slot = frame.slot
    frame.release()
    eventually(lambda: (camera.publish(), not frame.still_valid())[1], "the overwriting")
    asking = late_bgr.LateBgr(camera.writer.path, "asking", reader.ring_id)
    assert not asking.made(slot, 1)
    asking.close()
    assert camera.late == []


def test_where_making_fails_the_reader_converts(tmp_path):
    with NumberCamera(tmp_path / "s") as camera, FrameReader(camera.writer.path, "reader") as reader:
        camera.writer._make_bgr = lambda slot: 1 / 0
        camera.publish()
        frame = reader.get(30, bgr=False)
        assert not frame.make_bgr() and np.all(frame.bgr() == LUMA_1)
        assert camera.writer.stats().bgr_failed == 2


def test_a_writer_that_makes_none_or_knows_the_question_not_is_not_asked(tmp_path):
    with NumberCamera(tmp_path / "s", make_bgr=False) as camera, FrameReader(camera.writer.path, "reader") as reader:
        assert not reader.makes_bgr
        camera.publish()
        assert np.all(reader.get(30, bgr=False).bgr() == LUMA_1)
        assert (len(camera.writer._peers), camera.writer.stats().malformed) == (1, 0)


def test_a_reader_of_before_does_not_mind_what_a_writer_can_do(camera, reader):
    """It knows nothing of what stands in the place of the generation."""
    announced = wire.parse_ring(wire.parse(wire.ring(wire.WELCOME, wire.Announcement(8, 4096, 7, wire.MAKES_BGR)))[1])
    assert (announced.slots, announced.slot_bytes, announced.ring_id) == (8, 4096, 7)
    assert reader.makes_bgr


WRITER = """
import threading
from tests.support.shared_memory import NumberCamera
asked, go_on = threading.Event(), threading.Event()
class Slow(NumberCamera):
    def _make_bgr(self, slot):
        asked.set()
        go_on.wait()
        super()._make_bgr(slot)
"""


@pytest.fixture
def slow(tmp_path, request):
    """A writer in a process of its own, which makes no BGR until `go_on` is set, and a frame of it."""
    path = str(tmp_path / "s")
    with Interpreter() as other:
        other.do("import sys; sys.path.append(root)", root=str(request.config.rootpath))
        other.do(WRITER)
        other.do("camera = Slow(path)", path=path)
        with FrameReader(path, "reader") as reader:
            other.do("camera.publish()")
            yield other, reader, reader.get(30, bgr=False)


def test_a_writer_that_dies_while_it_is_asked_leaves_the_reader_to_convert(slow):
    other, reader, frame = slow
    seen = []
    thread = threading.Thread(target=lambda: seen.append(int(frame.bgr().max())))
    thread.start()
    assert other.ask("asked.wait(30)")
    other.kill()
    thread.join()
    assert seen == [LUMA_1]
    with pytest.raises(RingGone):
        reader.get(30)


def test_a_writer_that_hangs_is_waited_for_once_and_then_left_alone_for_a_while(slow, monkeypatch):
    other, _, frame = slow
    monkeypatch.setattr(late_bgr, "BGR_TIMEOUT_S", 0.2)
    assert np.all(frame.bgr() == LUMA_1)
    monkeypatch.setattr(late_bgr, "BGR_TIMEOUT_S", 1000.0)
    assert np.all(frame.bgr() == LUMA_1), "at once: this one would take for ever"
    other.do("go_on.set()")
    # Its work was not for nothing.
    eventually(frame.make_bgr, "the making")
    assert np.all(frame.bgr() == 1) and other.ask("camera.late") == [1]


def test_closing_a_reader_ends_the_question_under_way(slow):
    _, reader, frame = slow
    seen = []
    thread = threading.Thread(target=lambda: seen.append(int(frame.bgr().max())))
    thread.start()
    eventually(lambda: slow[0].ask("asked.is_set()"), "the question")
    reader.close()
    thread.join(late_bgr.BGR_TIMEOUT_S / 2)
    assert seen == [LUMA_1]
