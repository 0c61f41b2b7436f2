"""Pictures from applications to the display, by reference and as own pixels."""

# ruff: noqa: SIM117 (this file runs on Python 3.7, too, which has no parentheses around several contexts)

import contextlib
import queue

import numpy as np
import pytest

from framelink import (
    Annotations,
    FramePicture,
    FrameReader,
    LayoutError,
    OutputReceiver,
    OutputSender,
    PixelFormat,
    PixelPicture,
    calls_wire,
    outputs_wire,
    sockets,
    wire,
)
from framelink.ring import Ring
from tests.support.interpreter import Interpreter
from tests.support.shared_memory import NumberCamera, eventually


class Display:
    """A receiver that keeps what comes."""

    def __init__(self, path, rings=None):
        self.outputs = queue.Queue()
        self.left = []
        self.receiver = OutputReceiver(
            str(path),
            self.outputs.put,
            (rings or {}).get,
            left=lambda instance, node: self.left.append((instance, node)),
        )

    def next(self):
        return self.outputs.get(timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.receiver.close()


class Scene:
    """A camera, an application that reads it, and a display that can look into its ring."""

    def __init__(self, folder):
        self.camera = NumberCamera(folder / "camera")
        self.reader = FrameReader(self.camera.writer.path, "app")
        self.ring = FrameReader(self.camera.writer.path, "display")
        self.display = Display(folder / "display", {"door": self.ring})
        self.sender = OutputSender(str(folder / "display"), "instance-1", "video_out")
        eventually(lambda: (self.sender.collect(), self.sender.stats().connected)[1], "the connection")

    def frame(self, bgr=True):
        self.camera.publish(bgr=bgr)
        return self.reader.get(10, bgr=bgr)

    def put(self, frame, annotations=None, **more):
        return self.sender.put(FramePicture("door", "stream-1", frame), annotations, **more)


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    yield scene
    scene.sender.close()
    scene.display.receiver.close()
    scene.ring.close()
    scene.reader.close()
    scene.camera.close()


def test_an_untouched_frame_goes_by_reference_and_stays_held_until_the_display_is_done(scene):
    frame = scene.frame()
    annotations = Annotations([(0.25, 0.0, 1.0, 0.5)], [("a person ü", 0.5, 1.0)])
    assert scene.put(frame, annotations)
    output = scene.display.next()
    assert (output.instance_id, output.node, output.stream_id) == ("instance-1", "video_out", "stream-1")
    assert output.by_reference and output.info == frame.info
    assert (list(output.rects), list(output.labels)) == (annotations.rects, annotations.labels)
    for _ in range(30):
        scene.camera.publish()
    assert np.all(output.bgr() == 1) and np.all(output.planes()[0] == 1) and output.still_valid()
    assert scene.camera.reader("app").held == 1
    output.done()
    output.done()
    eventually(lambda: (scene.sender.collect(), scene.camera.reader("app").held == 0)[1], "the release")


def test_a_frame_under_way_is_kept_by_its_sender_when_everybody_else_has_forgotten_it(scene):
    finished = []
    scene.put(scene.frame(), done=lambda: finished.append(1))
    output = scene.display.next()
    for _ in range(30):
        scene.camera.publish()
    assert scene.camera.reader("app").held == 1
    assert np.all(output.bgr() == 1) and output.still_valid()
    output.done()
    eventually(lambda: (scene.sender.collect(), finished)[1], "the finishing")
    eventually(lambda: scene.camera.reader("app").held == 0, "the release")


def test_own_pixels_are_copied_and_carry_the_capture_time(scene):
    pixels = np.random.RandomState(1).randint(0, 255, (50, 70, 3)).astype(np.uint8)
    assert scene.sender.put(PixelPicture("stream-1", pixels[:, ::-1], 12345, 678))
    output = scene.display.next()
    assert not output.by_reference
    assert (output.info.width, output.info.height, output.info.format) == (70, 50, PixelFormat.BGR24)
    assert (output.info.capture_ns, output.info.pts_us) == (12345, 678)
    expected = pixels[:, ::-1].copy()
    pixels[...] = 0
    assert np.array_equal(output.bgr(), expected) and np.array_equal(output.planes()[0], expected)
    assert not output.bgr().flags.writeable
    output.done()


def test_a_display_that_is_behind_costs_pictures_and_not_time(scene):
    outputs, finished = [], []
    for number in range(5):
        scene.put(scene.frame(), done=lambda number=number: finished.append(number))
    assert finished == [2, 3, 4], "two are under way, the others are dropped at once"
    stats = scene.sender.stats()
    assert (stats.sent, stats.dropped_behind, stats.in_flight) == (2, 3, 2)
    other = FramePicture("door", "another stream", scene.frame())
    assert scene.sender.put(other), "every stream has its own share"
    outputs = [scene.display.next() for _ in range(3)]
    for output in outputs:
        output.done()
    eventually(lambda: (scene.sender.collect(), len(finished) == 5)[1], "the finishing")


def test_without_a_display_pictures_are_dropped_and_their_slots_go_back(tmp_path):
    with NumberCamera(tmp_path / "c") as camera, FrameReader(camera.writer.path, "app") as reader:
        with OutputSender(str(tmp_path / "d"), "i", "out") as sender:
            camera.publish()
            assert not sender.put(FramePicture("door", "s", reader.get(30, bgr=False)))
            assert sender.stats().dropped_absent == 1 and sender.fileno() == -1
            eventually(lambda: camera.reader("app").held == 0, "the release")
            with Display(tmp_path / "d"):
                eventually(lambda: (sender.collect(), sender.stats().connected)[1], "the connection")
                assert sender.fileno() >= 0


def test_a_sender_comes_back_to_a_display_that_was_restarted(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    with OutputSender(str(tmp_path / "d"), "i", "out") as sender:
        for _ in range(2):
            with Display(tmp_path / "d") as display:
                eventually(lambda: sender.put(PixelPicture("s", pixels, 0)), "the connection")
                assert display.next().node == "out"
            eventually(lambda: (sender.collect(), not sender.stats().connected)[1], "the noticing")
            assert sender.stats().in_flight == 0


def test_what_a_display_had_under_way_is_given_back_when_it_is_killed(tmp_path):
    display = Interpreter("from framelink import OutputReceiver, FrameReader")
    with display as other, NumberCamera(tmp_path / "c") as camera:
        other.do("kept = []; ring = FrameReader(path, 'display')", path=camera.writer.path)
        other.do("receiver = OutputReceiver(path, kept.append, lambda camera_id: ring)", path=str(tmp_path / "d"))
        with FrameReader(camera.writer.path, "app") as reader, OutputSender(str(tmp_path / "d"), "i", "out") as sender:
            eventually(lambda: (sender.collect(), sender.stats().connected)[1], "the connection")
            camera.publish()
            assert sender.put(FramePicture("door", "s", reader.get(30, bgr=False)))
            eventually(lambda: other.ask("len(kept)") == 1, "the picture")
            assert camera.reader("app").held == 1
            other.kill()
            eventually(lambda: (sender.collect(), camera.reader("app").held == 0)[1], "the release")


def test_a_display_is_told_that_an_application_was_killed(tmp_path):
    with Display(tmp_path / "d") as display, Interpreter("from framelink import OutputSender; import numpy") as other:
        other.do(
            "from framelink import PixelPicture; sender = OutputSender(path, 'i', 'out')", path=str(tmp_path / "d")
        )
        put = "sender.put(PixelPicture('s', numpy.full((8, 8, 3), 9, numpy.uint8), 0))"
        eventually(lambda: other.ask(put), "the connection")
        output = display.next()
        other.kill()
        eventually(lambda: display.left == [("i", "out")], "the noticing")
        assert np.all(output.bgr() == 9), "its last picture stays readable"
        output.done()
        assert display.receiver.stats().senders == 0


def test_a_reference_that_leads_nowhere_is_counted_and_given_back(scene):
    frame = scene.frame()
    scene.sender.put(FramePicture("no such camera", "s", frame))
    eventually(lambda: scene.display.receiver.stats().unresolved == 1, "the look-up")
    eventually(lambda: (scene.sender.collect(), scene.sender.stats().in_flight == 0)[1], "the giving back")
    assert scene.display.outputs.empty()


def test_pixels_that_are_none_are_refused(scene):
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), None):
        with pytest.raises(LayoutError):
            scene.sender.put(PixelPicture("s", wrong, 0))
    done = []
    with pytest.raises(LayoutError):
        scene.sender.put(PixelPicture("s", None, 0), done=lambda: done.append(1))
    assert done == [1]


def test_a_handler_that_raises_costs_one_connection_and_not_the_receiver(tmp_path):
    seen = []

    def handler(output):
        seen.append(output.instance_id)
        if len(seen) == 1:
            raise KeyError("the handler's own fault")
        output.done()

    picture = PixelPicture("s", np.zeros((8, 8, 3), np.uint8), 0)
    with OutputReceiver(str(tmp_path / "d"), handler, lambda camera_id: None):
        with OutputSender(str(tmp_path / "d"), "i", "out") as sender:
            eventually(lambda: sender.put(picture), "the connection")
            eventually(lambda: (sender.collect(), not sender.stats().connected)[1], "the disconnection")
            eventually(lambda: sender.put(picture), "the next connection")
            eventually(lambda: len(seen) == 2, "the second picture")


class HostileSender:
    """Speaks the protocol by hand."""

    def __init__(self, path):
        self.socket = sockets.connect(str(path), 5)
        self.socket.send(outputs_wire.output_hello("hostile", "out"))
        assert wire.parse(self.hear())[0] == calls_wire.READY

    def hear(self):
        sockets.ready(self.socket.fileno(), 1, 5)
        return sockets.receive_plain(self.socket)

    def put(self, **fields):
        given = {"put_id": 1, "stream_id": "s", "capture_ns": 0, "pts_us": 0, "width": 8, "height": 8}
        self.socket.send(outputs_wire.put(outputs_wire.Put(**dict(given, **fields)))[0])

    def give(self, size=4096):
        ring = Ring.create("test", 1, size)
        announced = wire.Announcement(1, ring.slot_bytes, 1, 1)
        sockets.send(self.socket, wire.ring(calls_wire.BUFFER, announced), ring.descriptor)
        return ring

    def reason(self):
        while True:
            kind, body = wire.parse(self.hear())
            if kind == wire.GOODBYE:
                return wire.text(body, 512)


@pytest.mark.parametrize(
    "attack",
    [
        lambda sender: sender.put(buffer=7),
        lambda sender: (sender.give(), sender.put(buffer=1, width=4000, height=4000)),
        lambda sender: sender.put(width=0),
        lambda sender: sender.put(width=1 << 31, height=1 << 31),
        lambda sender: (sender.give(), sender.give()),
        lambda sender: (sender.give(), sender.put(buffer=1), sender.put(buffer=1)),
        lambda sender: (sender.give(), [sender.put(put_id=number, buffer=1) for number in range(70)]),
        lambda sender: sender.put(annotations=Annotations([(0, 0, 9, 9)])),
        lambda sender: sender.socket.send(wire.message(outputs_wire.PUT, b"short")),
        lambda sender: sender.socket.send(wire.message(calls_wire.DONE, b"12345678")),
    ],
)
def test_a_hostile_sender_is_disconnected_and_the_others_do_not_notice(scene, tmp_path, attack):
    hostile = HostileSender(tmp_path / "display")
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # it may be disconnected in the midst of its attack
        attack(hostile)
    assert hostile.reason()
    assert scene.display.receiver.stats().malformed == 1
    hostile.socket.close()
    while not scene.display.outputs.empty():
        scene.display.next().done()
    assert scene.put(scene.frame())
    assert scene.display.next().instance_id == "instance-1"


def test_a_sender_cannot_name_frames_that_are_not_there(scene, tmp_path):
    hostile = HostileSender(tmp_path / "display")
    scene.camera.publish()
    for number, name in enumerate([{"slot": 99}, {"slot": 4294967295}, {"sequence": 99}, {"ring_id": 5}]):
        hostile.put(put_id=number + 1, camera_id="door", **name)
        assert wire.parse(hostile.hear())[0] == calls_wire.DONE
    assert scene.display.receiver.stats().unresolved == 4
    hostile.socket.close()


def test_a_capture_time_from_the_future_is_not_believed(scene, tmp_path):
    hostile = HostileSender(tmp_path / "display")
    ring = hostile.give()
    hostile.put(buffer=1, capture_ns=(1 << 62))
    output = scene.display.next()
    assert 0 < output.info.capture_ns <= output.info.publish_ns
    output.done()
    hostile.socket.close()
    ring.close()
