"""Calls of models, the way the samples make them."""

# ruff: noqa: SIM117 (this file runs on Python 3.7, too, which has no parentheses around several contexts)

import threading

import numpy as np
import pytest

from framelink import FrameName, FrameReader
from tests.support.application import Surroundings
from tests.support.interpreter import Raised
from tests.support.shared_memory import eventually

QUICK = "from panoramasdk import _models; _models.HELD_MAX_S = 30"
"""Whatever a busy machine takes for an answer: these models are quick ones."""
IMAGE = "numpy.ones((1, 3, 4, 4), numpy.float32)"


@pytest.fixture
def around(tmp_path):
    with Surroundings(tmp_path) as around:
        yield around


@pytest.fixture
def app(around):
    with around.application() as app:
        app.do(QUICK)
        yield app


def test_a_call_gives_a_tuple_of_arrays_however_its_arguments_are_given(around, app):
    for arguments in (
        f"{{'images': {IMAGE}}}, 'detector'",
        f"'detector', {{'images': {IMAGE}}}",
        f"input={{'images': {IMAGE}}}, name='detector'",
        f"{{'images': {IMAGE}}}, 'detector', 10",
        f"{{'images': {IMAGE}}}, 'detector', time_out=10.0",
        f"{IMAGE}, 'detector'",
        f"{{'another name': {IMAGE}}}, 'detector'",
    ):
        app.do(f"outputs = node.call({arguments})")
        assert app.ask("type(outputs).__name__, len(outputs)") == ["tuple", 2]
        assert app.ask("float(outputs[0][0]), outputs[1].tolist()") == [48, [1.0]]
        model, inputs = around.requests[-1]
        assert model == "abc-FP32" and list(inputs) == ["images"]


def test_inputs_are_cast_and_a_missing_batch_is_added(around, app):
    for given in (
        "numpy.ones((3, 4, 4), numpy.uint8)",
        "numpy.ones((1, 3, 4, 4))",
        "numpy.ones((3, 4, 4), numpy.float16)[:, ::-1]",
    ):
        app.do(f"node.call({{'images': {given}}}, 'detector')")
        images = around.requests[-1][1]["images"]
        assert images.shape == (1, 3, 4, 4) and images.dtype == np.float32


def test_models_with_several_inputs_take_them_by_name(around, app):
    app.do("node.call({'b': [[1, 2]], 'a': numpy.array([3.0, 4.0])}, 'pair')")
    inputs = around.requests[-1][1]
    assert list(inputs) == ["a", "b"] and inputs["a"].tolist() == [[3, 4]] and inputs["b"].dtype == np.uint8
    for wrong in ("{'a': numpy.zeros(2)}", "numpy.zeros(2)"):
        with pytest.raises(Raised) as caught:
            app.do(f"node.call({wrong}, 'pair')")
        assert caught.value.kind == "ValueError"


def test_a_media_goes_as_pixels_until_the_model_has_shown_how_quick_it_is_then_by_its_name(around, app):
    camera = around.cameras["door"]
    for turn in range(3):
        camera.publish(bgr=True)
        app.do("frame = node.inputs.video_in.get(10)[0]; node.call(frame, 'detector')")
        assert around.requests[-1][1] == {}
        sent = around.pictures[-1]["images"]
        if turn == 0:
            assert sent.shape == (48, 64, 3) and sent.dtype == np.uint8
        else:
            assert isinstance(sent, FrameName) and sent.camera_id == "door"
            reader = FrameReader(camera.writer.path, "test")
            found = reader.view(sent.slot, sent.sequence, sent.ring_id)
            assert found is not None and found.info.sequence == turn + 1
            reader.close()


def test_a_media_without_bgr_has_it_made_in_its_slot_and_goes_by_its_name(around, app):
    camera = around.cameras["door"]
    camera.publish(bgr=True)
    app.do("node.call(node.inputs.video_in.get(10)[0], 'detector')")
    app.do("from panoramasdk import _looks; _looks.SELDOM = _looks.MOSTLY = 2")
    for _ in range(2):
        app.begin("frame, = node.inputs.video_in.get(10)")
        eventually(lambda: camera.reader(around.spec["instance_id"]).waiting, "the waiting")
        number = camera.publish(bgr=False)
        app.answer()
    assert camera.late in ([], [2]), "the request for the second one may have been under way"
    made = len(camera.late)
    app.do("node.call(frame, 'detector')")
    sent = around.pictures[-1]["images"]
    assert isinstance(sent, FrameName) and camera.late[made:] == [number]
    with FrameReader(camera.writer.path, "model") as reader:
        found = reader.view(sent.slot, sent.sequence, sent.ring_id)
        assert found.info.has_bgr and (found.bgr() == number).all()
    # The same picture that the application has, and nothing is made again.
    assert app.ask("int(frame.image.min()), int(frame.image.max())") == [number, number]
    app.do("node.call(frame, 'detector')")
    assert isinstance(around.pictures[-1]["images"], FrameName) and len(camera.late) == made + 1


def test_a_media_that_was_drawn_on_goes_as_pixels(around, app):
    for _ in range(2):
        around.cameras["door"].publish(bgr=True)
        app.do("frame = node.inputs.video_in.get(10)[0]; node.call({'images': frame}, 'detector')")
    assert isinstance(around.pictures[-1]["images"], FrameName)
    app.do("frame.image[:] = 7; node.call({'images': frame}, 'detector')")
    assert (around.pictures[-1]["images"] == 7).all()
    app.do("frame.image = numpy.full((2, 2, 3), 9, numpy.uint8); node.call(frame, 'detector')")
    assert (around.pictures[-1]["images"] == 9).all()


def test_a_media_that_is_not_in_its_ring_any_more_goes_again_as_pixels(tmp_path):
    def answer(request):
        if isinstance(request.pictures.get("images"), FrameName):
            request.fail("FRAME_GONE", "overwritten")
        else:
            request.reply({"y": np.ones(1)})

    with Surroundings(tmp_path, answer=answer) as around, around.application() as app:
        app.do(QUICK)
        for _ in range(2):
            around.cameras["door"].publish(bgr=True)
            assert app.ask("len(node.call(node.inputs.video_in.get(10)[0], 'detector', 10))") == 1
    kinds = [type(pictures["images"]).__name__ for pictures in around.pictures]
    assert kinds == ["ndarray", "FrameName", "ndarray"]


def test_an_unknown_model_is_a_key_error_that_names_the_known_ones(app):
    with pytest.raises(Raised, match="detector, pair") as caught:
        app.do(f"node.call({{'x': {IMAGE}}}, 'no_such_node')")
    assert caught.value.kind == "KeyError"


def test_an_answer_that_does_not_come_is_a_timeout(tmp_path):
    kept = []
    with Surroundings(tmp_path, answer=kept.append) as around, around.application() as app:
        with pytest.raises(Raised) as caught:
            app.do(f"node.call({IMAGE}, 'detector', 0.1)")
        assert caught.value.kind == "TimeoutException"
        kept.clear()


def test_a_model_that_loads_is_waited_for(tmp_path):
    answers = []

    def answer(request):
        answers.append(1)
        if len(answers) < 4:
            request.fail("LOADING", "not yet")
        else:
            request.reply({"y": np.ones(1)})

    with Surroundings(tmp_path, answer=answer) as around, around.application() as app:
        assert app.ask(f"len(node.call({IMAGE}, 'detector'))") == 1
        assert len(answers) == 4


def test_a_model_that_loads_for_too_long_is_a_timeout(tmp_path):
    with Surroundings(tmp_path, answer=lambda request: request.fail("LOADING", "not yet")) as around:
        with around.application() as app, pytest.raises(Raised, match="loading") as caught:
            app.do(f"node.call({IMAGE}, 'detector', 0.3)")
        assert caught.value.kind == "TimeoutException"


def test_a_model_that_cannot_be_run_is_an_error_with_its_code(tmp_path):
    with Surroundings(tmp_path, answer=lambda request: request.fail("INVALID_INPUT", "shape")) as around:
        with around.application() as app:
            with pytest.raises(Raised, match="INVALID_INPUT: model 'detector': shape") as caught:
                app.do(f"node.call({IMAGE}, 'detector')")
        assert caught.value.kind == "ModelError"


def test_a_call_outlives_a_restart_of_the_inference_process(tmp_path):
    kept = []
    with Surroundings(tmp_path, answer=kept.append) as around, around.application() as app:
        app.begin_ask(f"len(node.call({IMAGE}, 'detector', 30))")
        eventually(lambda: kept, "the call")
        around.models.close()
        around._answer = lambda request: request.reply({"y": np.ones(1)})
        around.models = around.model_server()
        assert app.answer() == 1
        kept.clear()


def test_other_threads_run_while_a_model_works(tmp_path):
    kept = []
    with Surroundings(tmp_path, answer=kept.append) as around, around.application() as app:
        app.do(
            "import threading\n"
            "done = []\n"
            f"call = threading.Thread(target=lambda: done.append(node.call({IMAGE}, 'detector', 30)))\n"
            "call.start()"
        )
        eventually(lambda: kept, "the call")
        around.cameras["door"].publish(bgr=True)
        assert app.ask("len(node.inputs.video_in.get(10))") == 1
        answered = threading.Thread(target=lambda: kept.pop().reply({"y": np.ones(1)}))
        answered.start()
        answered.join()
        eventually(lambda: app.ask("len(done)") == 1, "the answer")
