"""What an application gets from its cameras, in a process of its own."""

import pytest

from tests.support.application import Surroundings
from tests.support.interpreter import Raised
from tests.support.shared_memory import eventually

SEEN = "[(m.stream_id, m.is_cached, int(m.image[0, 0, 0])) for m in node.inputs.video_in.get(10)]"


@pytest.fixture
def around(tmp_path):
    with Surroundings(tmp_path) as around:
        yield around


@pytest.fixture
def two(tmp_path):
    with Surroundings(tmp_path, cameras=["door", "yard"]) as around:
        yield around


def test_a_frame_comes_with_all_that_an_application_may_ask_of_it(around):
    with around.application() as app:
        around.cameras["door"].publish(bgr=True)
        app.do("import time; media, = node.inputs.video_in.get()")
        assert app.ask("media.image.shape, str(media.image.dtype), media.image.flags.writeable") == [
            [48, 64, 3],
            "uint8",
            True,
        ]
        assert app.ask("int(media.image.min()), int(media.image.max())") == [1, 1]
        assert app.ask("media.stream_id, media.stream_uri, media.is_cached") == [
            "door_node",
            "rtsp://192.0.2.1/door",
            False,
        ]
        seconds, micros = app.ask("media.time_stamp")
        assert isinstance(seconds, int) and 0 <= micros < 1000000
        assert app.ask("0 <= time.time() - (media.time_stamp[0] + media.time_stamp[1] / 1e6) < 30")


def test_the_image_is_the_applications_own_and_stays_so(around):
    with around.application() as app:
        around.cameras["door"].publish(bgr=True)
        app.do("media, = node.inputs.video_in.get(10); media.image[:] = 200")
        for _ in range(20):
            around.cameras["door"].publish(bgr=True)
        assert app.ask("int(media.image.min())") == 200
        assert app.ask(SEEN)[0][2] == 21


def test_get_waits_for_a_new_frame(around):
    with around.application() as app:
        around.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", False, 1]]
        app.begin_ask(SEEN)
        eventually(lambda: around.cameras["door"].reader(around.spec["instance_id"]).waiting, "the waiting")
        around.cameras["door"].publish(bgr=True)
        assert app.answer() == [["door_node", False, 2]]


def test_a_camera_without_a_new_frame_contributes_its_previous_one(two):
    with two.application() as app:
        two.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", False, 1]], "the yard has never delivered"
        two.cameras["yard"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", True, 1], ["yard_node", False, 1]]
        two.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", False, 2], ["yard_node", True, 1]]


def test_a_busy_application_gets_the_newest_frame_of_every_camera(two):
    with two.application() as app:
        # Its limit is for cameras that cannot give; here both can, on however busy a machine.
        app.do("from panoramasdk import _cameras; _cameras.GATHER_S = 5")
        for camera in two.cameras.values():
            eventually(lambda camera=camera: camera.reader(two.spec["instance_id"]), "the connecting")
        for number in range(1, 4):
            first, second = ("door", "yard") if number % 2 else ("yard", "door")
            two.cameras[first].publish(bgr=True)
            app.ask("len(node.inputs.video_in.get(10))")
            # While it works: the camera that it still waits for delivers, and then both go on.
            for _ in range(10):
                two.cameras[second].publish(bgr=True)
                two.cameras[first].publish(bgr=True)
            newest = {camera: two.cameras[camera].writer.stats().frames_written for camera in two.cameras}
            assert app.ask(SEEN) == [["door_node", False, newest["door"]], ["yard_node", False, newest["yard"]]]


def test_a_cached_frame_has_the_cameras_pixels_and_not_what_was_drawn(two):
    with two.application() as app:
        two.cameras["door"].publish(bgr=True)
        app.do("media, = node.inputs.video_in.get(10); media.image[:] = 99; media.add_rect(0, 0, 1, 1)")
        two.cameras["yard"].publish(bgr=True)
        assert app.ask(SEEN)[0] == ["door_node", True, 1]


def test_a_timeout_is_a_timeout_error_by_either_name(around):
    with around.application() as app:
        for kind in ("TimeoutError", "panoramasdk.TimeoutException"):
            app.do(f"try:\n node.inputs.video_in.get(timeout=0.05)\n caught = False\nexcept {kind}:\n caught = True")
            assert app.ask("caught")
        around.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", False, 1]]


def test_media_that_an_application_keeps_keep_their_pixels_and_no_slot(around):
    with around.application() as app:
        app.do("kept = []")
        for _number in range(1, 13):
            around.cameras["door"].publish(bgr=True)
            app.do("kept += node.inputs.video_in.get(10)")
            eventually(lambda: around.cameras["door"].reader(around.spec["instance_id"]).held <= 2, "the giving back")
        assert app.ask("[int(media.image[5, 5, 1]) for media in kept]") == list(range(1, 13))
        assert around.cameras["door"].writer.stats().dropped_no_slot == 0


def test_literals_have_their_types_and_are_there_at_once(around):
    with around.application() as app:
        values = "[node.inputs.%s.get() for _ in range(2)]"
        assert (
            app.ask(values % "threshold") == [50.0, 50.0]
            and app.ask("type(node.inputs.threshold.get()).__name__") == "float"
        )
        assert app.ask(values % "count") == [3, 3]
        assert app.ask(values % "label") == ["ü", "ü"]
        assert app.ask(values % "enabled") == [True, True]


def test_a_port_that_is_not_there_is_named_with_those_that_are(around):
    with around.application() as app:
        with pytest.raises(Raised, match=r"video_inn.*video_in") as caught:
            app.ask("node.inputs.video_inn")
        assert caught.value.kind == "AttributeError"
        with pytest.raises(Raised, match="input"):
            app.do("node.inputs.video_in.put([])")
        with pytest.raises(Raised, match="output"):
            app.do("node.outputs.video_out.get()")


def test_an_input_without_a_camera_says_so(tmp_path):
    with Surroundings(tmp_path, cameras=[]) as around, around.application() as app:
        with pytest.raises(Raised, match="no camera") as caught:
            app.do("node.inputs.video_in.get()")
        assert caught.value.kind == "NodeError"


def test_a_camera_that_dies_is_found_again_while_another_delivers(two):
    with two.application() as app:
        two.cameras["door"].publish(bgr=True)
        app.ask(SEEN)
        two.cameras["yard"].publish(bgr=True)
        app.ask(SEEN)
        two.cameras["door"].close()
        two.cameras["yard"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", True, 1], ["yard_node", False, 2]]
        two.cameras["door"] = two.camera("door")
        two.cameras["door"].publish(bgr=True)
        two.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", False, 2], ["yard_node", True, 2]]


def test_a_camera_that_comes_later_is_found_while_get_waits(tmp_path):
    with Surroundings(tmp_path) as around:
        around.cameras.pop("door").close()
        with around.application() as app:
            app.begin_ask(SEEN)
            camera = around.cameras["door"] = around.camera("door")
            eventually(lambda: camera.reader(around.spec["instance_id"]), "the connecting")
            camera.publish(bgr=True)
            assert app.answer() == [["door_node", False, 1]]


def test_a_camera_that_is_still_for_long_contributes_nothing(two):
    with two.application() as app:
        two.cameras["door"].publish(bgr=True)
        app.ask(SEEN)

        def seen():
            two.cameras["yard"].publish(bgr=True)
            return [stream for stream, _, _ in app.ask(SEEN)]

        assert seen() == ["door_node", "yard_node"]
        app.do("from panoramasdk import _cameras; _cameras.CACHED_MAX_AGE_S = 0.2")
        eventually(lambda: seen() == ["yard_node"], "the forgetting")
        two.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN)[0] == ["door_node", False, 2]


def test_slots_are_given_back_while_the_application_is_busy_when_another_reader_needs_them(tmp_path):
    """The application sleeps with two batches in its hands; a camera of three slots has only one to give."""
    with Surroundings(tmp_path, cameras=[]) as around:
        from framelink import FrameReader
        from tests.support.application import _stream
        from tests.support.shared_memory import NumberCamera

        (tmp_path / "cameras" / "small").mkdir(parents=True)
        path = tmp_path / "cameras" / "small" / "frames.sock"
        around.spec["inputs"]["video_in"]["streams"] = [_stream("small")]
        with NumberCamera(path, slots=3) as camera, around.application() as app:
            camera.publish(bgr=True)
            app.do("medias = node.inputs.video_in.get(10)")
            camera.publish(bgr=True)
            with FrameReader(str(path), "other") as other:
                assert other.get(10, bgr=False).info.sequence == 2
            assert camera.writer.stats().evicted == 0
            assert app.ask("int(medias[0].image[0, 0, 0])") == 1


def _taken(around, app, then=""):
    """The application takes a frame, and does `then` with it. Whether its BGR was asked for in advance."""
    camera = around.cameras["door"]
    app.begin("medias = node.inputs.video_in.get(10)\n" + then)
    eventually(lambda: camera.reader(around.spec["instance_id"]).waiting, "the waiting")
    wanted = camera.writer.bgr_wanted()
    camera.publish(bgr=wanted)
    app.answer()
    return wanted


@pytest.fixture
def connected(around):
    with around.application() as app:
        eventually(lambda: around.cameras["door"].reader(around.spec["instance_id"]), "the connecting")
        yield app


def test_bgr_is_not_asked_for_by_an_application_that_looks_at_no_image_and_made_where_it_looks_after_all(
    around, connected
):
    assert _taken(around, connected)
    eventually(lambda: not _taken(around, connected), "the end of the wish")
    number = around.cameras["door"].writer.stats().frames_written
    assert connected.ask("int(medias[0].image.max())") == number
    assert around.cameras["door"].late == [number], "by the camera"
    assert not _taken(around, connected), "one look is no habit"


def test_who_looks_at_every_third_frame_has_only_those_converted(around, connected):
    eventually(lambda: not _taken(around, connected), "the end of the wish")
    before, late = around.cameras["door"].writer.stats().frames_written, around.cameras["door"].late
    for turn in range(30):
        assert not _taken(around, connected, "" if turn % 3 else "seen = int(medias[0].image[0, 0, 0])")
    assert late == [before + 1 + turn for turn in range(0, 30, 3)]


def test_who_looks_at_every_frame_has_each_converted_in_advance_and_who_begins_to_soon_has_it_again(around, connected):
    look = "seen = int(medias[0].image[0, 0, 0])"
    assert all(_taken(around, connected, look) for _ in range(40))
    assert around.cameras["door"].late == []
    eventually(lambda: not _taken(around, connected), "the end of the wish")
    eventually(lambda: _taken(around, connected, look), "the return of the wish")
    late = len(around.cameras["door"].late)
    assert all(_taken(around, connected, look) for _ in range(20))
    assert len(around.cameras["door"].late) == late


def test_a_camera_that_makes_no_bgr_on_demand_is_asked_in_advance(around):
    camera = around.cameras["door"]
    camera.writer._make_bgr = None
    with around.application() as app:
        eventually(lambda: camera.reader(around.spec["instance_id"]), "the connecting")
        assert all(_taken(around, app) for _ in range(30))


def test_several_threads_may_wait_for_frames(two):
    with two.application() as app:
        app.do(
            "import threading\n"
            "got = []\n"
            "def take():\n"
            "    for _ in range(5):\n"
            "        got.append(len(node.inputs.video_in.get(20)))\n"
            "threads = [threading.Thread(target=take) for _ in range(3)]\n"
            "[thread.start() for thread in threads]"
        )
        eventually(lambda: (two.cameras["door"].publish(bgr=True), app.ask("len(got)") == 15)[1], "the taking")


PAUSE_DOOR = {"type": "paused", "cameras": ["door"]}
RESUME_ALL = {"type": "paused", "cameras": []}


def _settled(app, paused):
    """The application has heard of it."""
    eventually(
        lambda: (
            app.ask("[feed.stream.camera_id for feed in node.inputs.video_in._cameras._feeds if feed.paused]") == paused
        ),
        "the pause",
    )


def test_a_camera_that_is_paused_for_this_application_delivers_nothing_and_the_others_go_on(two):
    with two.application() as app:
        two.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", False, 1]]
        two.say(PAUSE_DOOR)
        _settled(app, ["door"])
        two.cameras["door"].publish(bgr=True)
        two.cameras["yard"].publish(bgr=True)
        assert app.ask(SEEN) == [["yard_node", False, 1]], "not even its previous frame"
        two.say(RESUME_ALL)
        _settled(app, [])
        two.cameras["door"].publish(bgr=True)
        assert app.ask(SEEN) == [["door_node", False, 3], ["yard_node", True, 1]]
        assert two.cameras["door"].reader(two.spec["instance_id"]).held <= 2


def test_a_get_that_waits_hears_of_pauses(two):
    with two.application() as app:
        app.begin_ask(SEEN)
        eventually(lambda: two.cameras["door"].reader(two.spec["instance_id"]), "the connecting")
        eventually(lambda: two.cameras["door"].reader(two.spec["instance_id"]).waiting, "the waiting")
        two.say(PAUSE_DOOR)
        for _ in range(2):  # its background thread has been there since
            two.stats_when(lambda stats: True)
        two.cameras["door"].publish(bgr=True)
        eventually(lambda: two.cameras["door"].reader(two.spec["instance_id"]).held == 0, "the giving back")
        two.cameras["yard"].publish(bgr=True)
        assert app.answer() == [["yard_node", False, 1]]


def test_cameras_may_begin_as_paused(two):
    two.spec["paused"] = ["door", "yard"]
    with two.application() as app:
        for camera in two.cameras.values():
            camera.publish(bgr=True)
        with pytest.raises(Raised) as caught:
            app.do("node.inputs.video_in.get(0.3)")
        assert caught.value.kind == "TimeoutException"
        two.say({"type": "paused", "cameras": ["yard"]})
        assert app.ask(SEEN) == [["door_node", False, 1]]
