"""Frames from a writer to its readers: who gets which, and when."""

import gc
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from framelink import (
    HELD_MAX,
    AddressTaken,
    FrameReader,
    FrameTimeout,
    LayoutError,
    PixelFormat,
    RingAbsent,
    RingGone,
    sockets,
)
from tests.support.shared_memory import NumberCamera, eventually


@pytest.fixture
def camera(tmp_path):
    with NumberCamera(tmp_path / "s") as camera:
        yield camera


@pytest.fixture
def reader(camera):
    with FrameReader(camera.writer.path, "reader", connect_timeout_s=30) as reader:
        yield reader


def test_a_reader_gets_the_frame_that_was_published_with_all_that_is_known_of_it(camera, reader):
    sequence = camera.publish(bgr=True, capture_ns=12345)
    frame = reader.get(30)
    assert (frame.info.sequence, frame.info.capture_ns, frame.info.pts_us) == (sequence, 12345, 40000)
    assert (frame.info.width, frame.info.height, frame.info.format) == (64, 48, PixelFormat.I420)
    assert [plane.shape for plane in frame.planes()] == [(48, 64), (24, 32), (24, 32)]
    assert np.all(frame.planes()[0] == 1) and np.all(frame.planes()[1] == 128)
    assert frame.bgr().shape == (48, 64, 3) and np.all(frame.bgr() == 1)


def test_a_frame_that_is_there_already_is_delivered_at_once(camera, reader):
    camera.publish()
    camera.publish()
    assert reader.get(30, bgr=False).info.sequence == 2


def test_the_same_frame_is_never_delivered_twice_to_one_reader(camera, reader):
    camera.publish()
    reader.get(30, bgr=False).release()
    with pytest.raises(FrameTimeout):
        reader.get(0.05, bgr=False)


def test_a_slow_reader_skips_to_the_newest_frame_and_the_skipped_ones_are_counted(camera, reader):
    camera.publish()
    first = reader.get(30, bgr=False)
    for _ in range(20):
        camera.publish()
    second = reader.get(30, bgr=False)
    assert (first.skipped, second.skipped, second.info.sequence) == (0, 19, 21)
    assert camera.reader("reader").skipped == 19
    assert camera.reader("reader").delivered == 2


def test_a_request_gives_frames_back_in_the_same_message(camera, reader):
    camera.publish()
    first = reader.get(30, bgr=False)
    reader.request(bgr=False, giving_back=[first])
    eventually(lambda: camera.reader("reader").waiting, "the request")
    assert camera.reader("reader").held == 0 and not first.held
    first.release()  # harmless
    camera.publish()
    second = reader.get(30, bgr=False)
    assert (second.info.sequence, camera.reader("reader").held, camera.writer.stats().malformed) == (2, 1, 0)


def test_frames_are_given_back_also_where_no_request_is_sent(camera, reader):
    camera.publish()
    first = reader.get(30, bgr=False)
    reader.request(bgr=False)
    reader.request(bgr=False, giving_back=[first])
    eventually(lambda: camera.reader("reader").held == 0, "the giving back")
    reader.close()
    first.release()


def test_a_frame_of_a_writer_that_has_gone_can_be_given_to_its_successor(tmp_path):
    with NumberCamera(tmp_path / "s") as camera:
        reader = FrameReader(camera.writer.path, "reader")
        camera.publish()
        first = reader.get(30, bgr=False)
    with NumberCamera(tmp_path / "s") as camera:
        reader.reconnect(30)
        reader.request(bgr=False, giving_back=[first])
        eventually(lambda: camera.reader("reader").waiting, "the request")
        assert (camera.reader("reader").held, camera.writer.stats().malformed) == (0, 0)
        reader.close()


def test_a_picture_that_its_taker_turned_round_leaves_the_next_one_as_it_is(camera, reader):
    camera.publish(bgr=True)
    with reader.get(30) as frame:
        frame.bgr().shape = (48 * 64, 3)
        assert frame.bgr().shape == (48, 64, 3)
        with pytest.raises(ValueError, match="WRITEABLE"):
            frame.bgr().flags.writeable = True


def test_who_waits_because_the_others_hold_the_slots_has_its_frame_as_soon_as_one_is_given_back(tmp_path):
    with NumberCamera(tmp_path / "s", slots=3) as camera, FrameReader(camera.writer.path, "holder") as holder:
        camera.publish()
        kept = holder.get(30, bgr=False)
        camera.publish()
        with FrameReader(camera.writer.path, "waiting") as waiting:
            waiting.request(bgr=False)
            eventually(lambda: camera.reader("waiting").waiting, "the request")
            assert waiting.take() is None
            kept.release()
            assert waiting.get(30, bgr=False).info.sequence == 2


def test_a_waiting_reader_is_told_at_the_next_publish(camera, reader):
    reader.request(bgr=False)
    assert reader.take() is None
    eventually(lambda: camera.reader("reader").waiting, "the request")
    camera.publish()
    assert select.select([reader], [], [], 5)[0] == [reader]
    assert reader.take().info.sequence == 1


def test_every_reader_gets_every_frame_it_asks_for(camera, reader):
    with FrameReader(camera.writer.path, "another") as another:
        camera.publish()
        first, second = reader.get(30), another.get(5)
        assert first.slot == second.slot
        assert (camera.reader("reader").held, camera.reader("another").held) == (1, 1)


def test_a_writer_knows_whether_anybody_waits_for_bgr(camera, reader):
    reader.request(bgr=False)
    eventually(lambda: camera.reader("reader").waiting, "the request")
    assert not camera.writer.bgr_wanted()
    reader.request(bgr=True)
    eventually(camera.writer.bgr_wanted, "the wish for BGR")
    camera.publish(bgr=True)
    assert not camera.writer.bgr_wanted()
    assert camera.late == []


def test_bgr_is_made_late_for_a_reader_that_comes_after_the_frame(camera, reader):
    camera.publish(bgr=False)
    frame = reader.get(30, bgr=True)
    assert frame.info.has_bgr and np.all(frame.bgr() == 1)
    assert camera.late == [1]
    with FrameReader(camera.writer.path, "another") as another:
        assert another.get(30, bgr=True).info.has_bgr
    assert camera.late == [1], "once is enough for all"


def test_bgr_is_not_made_for_readers_that_do_not_want_it(camera, reader):
    for _ in range(5):
        camera.publish()
        reader.get(30, bgr=False).release()
    assert camera.late == []


def test_a_frame_goes_out_without_bgr_where_making_it_fails(tmp_path):
    with NumberCamera(tmp_path / "s") as camera, FrameReader(camera.writer.path, "reader") as reader:
        camera.writer._make_bgr = lambda slot: 1 / 0
        camera.publish()
        frame = reader.get(30, bgr=True)
        assert not frame.info.has_bgr
        assert camera.writer.stats().bgr_failed == 1
        assert frame.bgr().shape == (48, 64, 3), "converted by the reader itself"
        assert camera.writer.stats().bgr_failed == 2, "after it has asked once more"


def test_a_reader_that_holds_its_share_gets_no_more_until_it_releases(camera, reader):
    held = []
    for _ in range(HELD_MAX):
        camera.publish()
        held.append(reader.get(30, bgr=False))
    camera.publish()
    with pytest.raises(FrameTimeout):
        reader.get(0.05, bgr=False)
    held.pop(0).release()
    assert reader.get(30, bgr=False).info.sequence == HELD_MAX + 1


def test_a_held_slot_is_never_overwritten(camera, reader):
    camera.publish(bgr=True)
    frame = reader.get(30)
    for _ in range(50):
        assert camera.publish(bgr=True) is not None
    assert frame.still_valid() and np.all(frame.bgr() == 1) and np.all(frame.planes()[0] == 1)


def test_a_released_slot_is_used_again_and_the_old_frame_knows_it(camera, reader):
    camera.publish()
    frame = reader.get(30, bgr=False)
    frame.release()
    frame.release()
    eventually(lambda: (camera.publish(), not frame.still_valid())[1], "the overwriting")


def test_the_writer_never_runs_out_of_slots_whatever_readers_hold(camera):
    readers = [FrameReader(camera.writer.path, str(number)) for number in range(6)]
    held = []
    for _ in range(40):
        assert camera.publish() is not None
        for reader in readers:
            reader.request(bgr=False)
        held += [frame for frame in (reader.take() for reader in readers) if frame is not None]
    eventually(lambda: sum(reader.held for reader in camera.writer.stats().readers) >= 6, "the readers' holding")
    assert camera.publish() is not None
    assert camera.writer.stats().dropped_no_slot == 0
    for reader in readers:
        reader.close()


def test_a_writer_with_every_slot_in_hand_is_told_so_and_counted(camera):
    slots = [camera.writer.acquire() for _ in range(8)]
    assert camera.writer.acquire() is None
    assert camera.writer.stats().dropped_no_slot == 1
    camera.writer.discard(slots[0])
    assert camera.publish() == 1


def test_a_slot_can_be_published_once(camera):
    slot = camera.writer.acquire()
    given = {"capture_ns": 0, "pts_us": 0, "width": 64, "height": 48, "format": PixelFormat.I420, "has_bgr": False}
    camera.writer.publish(slot, **given)
    with pytest.raises(LayoutError, match="acquire"):
        camera.writer.publish(slot, **given)


def test_a_frame_nobody_remembers_goes_back_by_itself(camera, reader):
    camera.publish()
    frame = reader.get(30, bgr=False)
    del frame
    gc.collect()
    eventually(lambda: camera.reader("reader").held == 0, "the release")


def test_a_frame_that_another_process_holds_can_be_looked_at_by_name(camera, reader):
    with FrameReader(camera.writer.path, "display") as display:
        camera.publish(bgr=True)
        held = reader.get(30)
        seen = display.view(held.slot, held.info.sequence, held.ring_id)
        assert seen.info == held.info and np.all(seen.bgr() == 1)
        assert camera.reader("display").held == 0
        assert display.view(held.slot, 99) is None
        assert display.view(99, 1) is None and display.view(-1, 1) is None
        assert display.view(held.slot, 1, ring_id=held.ring_id + 1) is None
        held.release()
        eventually(lambda: (camera.publish(), not seen.still_valid())[1], "the overwriting")


def test_a_reader_is_told_that_the_writer_has_ended_and_finds_its_successor(tmp_path):
    first = NumberCamera(tmp_path / "s")
    reader = FrameReader(first.writer.path, "reader")
    first.publish(bgr=True)
    frame = reader.get(30)
    first.close()
    with pytest.raises(RingGone):
        reader.get(30)
    assert reader.gone and not frame.held
    assert np.all(frame.bgr() == 1), "what was taken stays readable"
    with pytest.raises(RingAbsent):
        reader.reconnect(0.05)
    with NumberCamera(tmp_path / "s") as second:
        reader.reconnect(30)
        frame.release()
        second.publish()
        assert reader.get(30, bgr=False).info.sequence == 1
        assert second.writer.stats().malformed == 0
        reader.close()


def test_a_reader_that_met_a_writer_on_its_way_out_is_let_in_by_its_successor(tmp_path):
    path = str(tmp_path / "s")
    with sockets.listen(path) as ending, ThreadPoolExecutor(1) as others:
        ending.setblocking(True)
        coming = others.submit(FrameReader, path, "reader", connect_timeout_s=10)
        met, _ = ending.accept()
        Path(path).unlink()
        met.close()
        with NumberCamera(path) as successor, coming.result(10) as reader:
            successor.publish()
            assert reader.get(30, bgr=False).info.sequence == 1


def test_who_ends_every_connection_is_given_up_in_time(tmp_path):
    path = str(tmp_path / "s")
    enough = threading.Event()
    with sockets.listen(path) as ending, ThreadPoolExecutor(1) as others:
        ending.setblocking(True)

        def end_all():
            while not enough.is_set():
                ending.accept()[0].close()

        done = others.submit(end_all)
        with pytest.raises(RingAbsent, match="ends each connection"):
            FrameReader(path, "reader", connect_timeout_s=0.3)
        enough.set()
        sockets.connect(path, 1).close()
        done.result(10)


def test_a_reader_of_nobody_says_so(tmp_path):
    with pytest.raises(RingAbsent, match="nobody serves"):
        FrameReader(str(tmp_path / "s"), "reader", connect_timeout_s=0.05)


def test_two_writers_cannot_have_one_path(camera):
    with pytest.raises(AddressTaken):
        NumberCamera(camera.writer.path)
    assert camera.publish() == 1


def test_the_socket_goes_with_the_writer_and_a_dead_one_is_taken_over(tmp_path):
    path = tmp_path / "s"
    with NumberCamera(path):
        assert path.exists()
    assert not path.exists()
    path.symlink_to("/nowhere")
    with pytest.raises(AddressTaken):
        NumberCamera(path)


def test_the_seventeenth_reader_is_refused_with_the_reason(tmp_path):
    with NumberCamera(tmp_path / "s", max_readers=16) as camera:
        readers = [FrameReader(camera.writer.path, str(number)) for number in range(16)]
        with pytest.raises(RingGone, match="16"):
            FrameReader(camera.writer.path, "one too many")
        assert camera.writer.stats().refused == 1
        readers.pop().close()
        eventually(lambda: len(camera.writer.stats().readers) == 15, "the leaving")
        readers.append(FrameReader(camera.writer.path, "now it fits"))
        for reader in readers:
            reader.close()


def test_a_picture_that_does_not_fit_its_slot_is_refused(camera):
    slot = camera.writer.acquire()
    with pytest.raises(LayoutError):
        slot.planes(4000, 4000, PixelFormat.I420)
    with pytest.raises(LayoutError):
        slot.planes(0, 48, PixelFormat.NV12)
