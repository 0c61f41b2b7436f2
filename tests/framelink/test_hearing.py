"""An owner that hears its readers itself: the same frames for the same readers, without a thread woken for each."""

import threading

import pytest

from framelink import FrameReader, FrameTimeout
from tests.support.shared_memory import NumberCamera, eventually


@pytest.fixture
def heard_on():
    return []


@pytest.fixture
def camera(tmp_path, heard_on):
    with NumberCamera(tmp_path / "s", on_wanted=lambda: heard_on.append(threading.current_thread())) as camera:
        yield camera


@pytest.fixture
def reader(camera):
    """It has the newest frame, and its next message is the owner's to take."""
    with FrameReader(camera.writer.path, "reader") as reader:
        reader.request(bgr=False)
        eventually(camera.writer.hear, "the request")
        camera.publish()
        reader.get(30, bgr=False).release()
        yield reader


def test_who_asks_in_time_is_heard_on_the_owners_thread(camera, reader, heard_on):
    heard_on.clear()
    for sequence in range(2, 30):
        reader.request(bgr=False)
        assert camera.writer.hear()
        camera.publish()
        with reader.get(30, bgr=False) as frame:
            assert frame.info.sequence == sequence
    # Where the machine was busy for a while, the writer's thread has heard one; it was not busy all the time.
    assert heard_on.count(threading.main_thread()) > 5


def test_a_slot_given_back_in_a_message_of_its_own_is_heard_too(camera, reader):
    for _ in range(20):
        reader.request(bgr=False)
        assert camera.writer.hear()
        camera.publish()
        frame = reader.get(30, bgr=False)
        frame.release()
    camera.writer.hear()
    eventually(lambda: camera.reader("reader").held == 0, "the slots")


def test_who_asks_late_has_the_newest_frame_at_once(camera, reader):
    camera.writer.hear()
    camera.publish()  # nobody has asked for it
    with reader.get(30, bgr=False) as frame:
        assert frame.info.sequence == 2


def test_where_no_more_frames_come_requests_are_heard_all_the_same(camera, reader):
    reader.request(bgr=False)
    eventually(camera.writer.wanted, "the writer's thread")


def test_after_the_newest_frame_is_retired_requests_are_heard_at_once(camera, reader, heard_on):
    heard_on.clear()
    camera.writer.retire()
    with pytest.raises(FrameTimeout):
        reader.get(0.01, bgr=False)
    eventually(lambda: heard_on, "the writer's thread")
    assert camera.writer.hear()


def test_a_wish_for_bgr_is_known_before_the_next_frame(camera, reader):
    reader.request(bgr=True)
    assert camera.writer.bgr_wanted()
    camera.publish(bgr=True)
    with reader.get(30) as frame:
        assert frame.info.has_bgr


def test_a_reader_that_ends_unheard_is_noticed(camera, reader):
    reader.close()
    eventually(lambda: not camera.writer.stats().readers, "its end")
    assert not camera.writer.hear()
    camera.publish()


def test_nonsense_in_the_owners_hands_ends_the_connection_and_nothing_else(camera, reader):
    with FrameReader(camera.writer.path, "another") as another:
        reader._connection.socket.send(b"nonsense that is no message")
        camera.writer.hear()
        camera.publish()
        assert another.get(30, bgr=False).info.sequence == 2
        eventually(lambda: [one.name for one in camera.writer.stats().readers] == ["another"], "the end of the other")
        assert camera.writer.stats().malformed == 1


def test_an_owner_that_hears_no_more_leaves_it_to_the_thread(camera, reader):
    for sequence in range(2, 6):
        camera.publish()
        with reader.get(30, bgr=False) as frame:
            assert frame.info.sequence == sequence
