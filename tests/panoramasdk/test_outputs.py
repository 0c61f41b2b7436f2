"""What an application puts reaches the display: by reference, or as its own pixels, with its annotations."""

import numpy as np
import pytest

from tests.support.application import INSTANCE, Surroundings
from tests.support.interpreter import Raised
from tests.support.shared_memory import eventually


@pytest.fixture
def around(tmp_path):
    with Surroundings(tmp_path) as around:
        yield around


@pytest.fixture
def app(around):
    with around.application() as app:
        app.do("def take():\n    global medias\n    medias = node.inputs.video_in.get(10)")
        eventually(lambda: around.display.stats().senders == 1, "the connection")
        around.cameras["door"].publish(bgr=True)
        app.do("take()")
        yield app


def _put(app, around):
    """Put until the display has answered the introduction; pictures before that are dropped."""

    def arrived():
        app.do("node.outputs.video_out.put(medias)")
        return not around.outputs.empty()

    eventually(arrived, "the picture")
    return around.output()


def test_an_untouched_frame_goes_by_reference(around, app):
    app.do("medias[0].add_rect(0.1, 0.25, 1, numpy.float32(0.5)); medias[0].add_label('one', numpy.float64(0), 1)")
    output = _put(app, around)
    assert output.by_reference and output.still_valid()
    assert (output.instance_id, output.node, output.stream_id) == (INSTANCE, "video_out", "door_node")
    assert np.allclose(output.rects, [(0.1, 0.25, 1, 0.5)]) and list(output.labels) == [("one", 0.0, 1.0)]
    assert np.all(output.bgr() == 1)


def test_looking_at_the_image_does_not_touch_it(around, app):
    assert app.ask("int(medias[0].image.sum())") == 64 * 48 * 3
    assert _put(app, around).by_reference


def test_drawing_on_the_image_sends_own_pixels(around, app):
    app.do("medias[0].image[10:20, 30:40] = (1, 2, 250)")
    output = _put(app, around)
    assert not output.by_reference
    assert tuple(output.bgr()[15, 35]) == (1, 2, 250) and tuple(output.bgr()[0, 0]) == (1, 1, 1)
    assert output.info.capture_ns > 0


def test_an_image_of_another_size_may_be_set(around, app):
    app.do("medias[0].image = numpy.full((20, 30, 3), 77, numpy.uint8)")
    output = _put(app, around)
    assert (output.info.width, output.info.height) == (30, 20) and np.all(output.bgr() == 77)
    for wrong in ("numpy.zeros((4, 4))", "numpy.zeros((4, 4, 3))", "numpy.zeros((0, 4, 3), numpy.uint8)", "None"):
        with pytest.raises(Raised) as caught:
            app.do(f"medias[0].image = {wrong}")
        assert caught.value.kind == "ValueError"


def test_put_takes_a_list_a_tuple_or_one_media(around, app):
    for given in ("medias", "tuple(medias)", "medias[0]"):
        app.do(f"medias = {given}")
        output = _put(app, around)
        assert output.stream_id == "door_node"
        output.done()


def test_a_batch_may_be_put_in_part_and_again(tmp_path):
    """As samples do that drop frames from the list they were given."""
    with Surroundings(tmp_path, cameras=["door", "yard"]) as around, around.application() as app:
        eventually(lambda: around.display.stats().senders == 1, "the connection")
        for camera in around.cameras.values():
            eventually(lambda camera=camera: camera.reader(INSTANCE), "the connecting")
            camera.publish(bgr=True)
        app.do("medias = []\nwhile len(medias) < 2: medias = node.inputs.video_in.get(10)")
        app.do("medias = [media for media in medias if media.stream_id == 'yard_node']")
        assert _put(app, around).stream_id == "yard_node"
        again = _put(app, around)
        assert again.stream_id == "yard_node" and np.all(again.bgr() == 1)


def test_put_refuses_what_is_no_media(app):
    refused = {"[]": "ValueError", "()": "ValueError", "None": "TypeError", "'x'": "TypeError", "[None]": "TypeError"}
    for given, kind in refused.items():
        with pytest.raises(Raised) as caught:
            app.do(f"node.outputs.video_out.put({given})")
        assert caught.value.kind == kind


def test_coordinates_outside_of_the_picture_are_refused(app):
    for call in (
        "add_rect(0, 0, 1.01, 1)",
        "add_rect(-0.1, 0, 1, 1)",
        "add_rect(0, float('nan'), 1, 1)",
        "add_label('x', 2, 0)",
        "add_label('x', 0, numpy.float32(-1))",
    ):
        with pytest.raises(Raised, match=r"0\.\.1") as caught:
            app.do(f"medias[0].{call}")
        assert caught.value.kind == "ValueError"


def test_a_frame_that_is_kept_for_long_goes_as_own_pixels(around, app):
    app.do("old = medias")
    for _ in range(3):
        around.cameras["door"].publish(bgr=True)
        app.do("take()")
    app.do("medias = old")
    output = _put(app, around)
    assert not output.by_reference and np.all(output.bgr() == 1)


def test_frames_of_a_camera_that_has_gone_go_as_own_pixels(around, app):
    around.cameras["door"].close()
    eventually(
        lambda: not app.ask("medias[0]._picture._frame is not None and medias[0]._picture._frame.held"), "the noticing"
    )
    output = _put(app, around)
    assert not output.by_reference and np.all(output.bgr() == 1)
    around.cameras["door"] = around.camera("door")


def test_a_slow_display_costs_pictures_and_no_slots(around, app):
    _put(app, around)
    for _ in range(20):
        around.cameras["door"].publish(bgr=True)
        app.do("take(); node.outputs.video_out.put(medias)")
    assert around.cameras["door"].reader(INSTANCE).held <= 4
    while not around.outputs.empty():
        around.output().done()


def test_without_a_connected_display_put_only_counts(tmp_path):
    with Surroundings(tmp_path, connected=False) as around, around.application() as app:
        around.cameras["door"].publish(bgr=True)
        app.do("node.outputs.video_out.put(node.inputs.video_in.get(10))")
        assert around.stats_when(lambda stats: stats["frames_put"])["frames_put"] == 1
        assert around.display.stats().senders == 0
