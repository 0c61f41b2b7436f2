"""The node itself, what it reads, and what it tells the supervisor."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest

from panoramasdk import NodeError, _spec
from tests.support.application import NODE, Surroundings
from tests.support.interpreter import LIBS, Interpreter, Raised, python
from tests.support.shared_memory import eventually

SAMPLE = """
import panoramasdk

class Application(panoramasdk.node):
    def __init__(self):
        # As in AWS's samples: no super().__init__().
        self.threshold = self.inputs.threshold.get()
        self.frame_num = 0

    def process_streams(self):
        streams = self.inputs.video_in.get()
        for stream in streams:
            self.frame_num += 1
            stream.add_label("frame %d" % self.frame_num, 0.1, 0.1)
        self.outputs.video_out.put(streams)

app = Application()
"""


@pytest.fixture
def around(tmp_path):
    with Surroundings(tmp_path) as around:
        yield around


def test_an_application_of_aws_samples_shape_runs(around):
    with around.application(SAMPLE) as app:
        assert app.ask("app.threshold") == 50.0
        for _ in range(3):
            around.cameras["door"].publish(bgr=True)
            app.do("app.process_streams()")
        assert app.ask("app.frame_num") == 3
        assert around.stats_when(lambda stats: stats["frames_put"] == 3)["frames_taken"] == 3


def test_a_subclass_that_calls_super_and_a_second_node_work_too(around):
    with around.application(NODE) as app:
        app.do(
            "class A(panoramasdk.node):\n    def __init__(self, x):\n        super(A, self).__init__()\n        self.x = x"
        )
        assert app.ask("A(5).x, A(6).inputs.count.get(), node.inputs is A(1).inputs") == [5, 3, True]


def test_the_public_names_are_those_of_aws_and_the_errors(around):
    with around.application() as app:
        assert app.ask("panoramasdk.__all__") == [
            "ModelError",
            "NodeError",
            "TimeoutException",
            "media",
            "node",
            "port",
        ]
        assert app.ask("isinstance(node.inputs.video_in, panoramasdk.port)")
        assert app.ask("isinstance(node.outputs.video_out, panoramasdk.port)")
        assert app.ask("sorted(node.inputs)") == ["count", "enabled", "label", "threshold", "video_in"]
        assert app.ask("issubclass(panoramasdk.TimeoutException, TimeoutError)")
        around.cameras["door"].publish(bgr=True)
        assert app.ask("isinstance(node.inputs.video_in.get(10)[0], panoramasdk.media)")


def test_the_supervisor_hears_of_the_node_and_of_its_first_frame_and_output(around):
    with around.application() as app:
        first = around.stats_when(lambda stats: True)
        assert (first["frames_taken"], first["frames_put"], first["calls"]) == (0, 0, 0)
        assert first["latency_app_ms"] == {"p50": None, "p99": None, "count": 0}
        assert first["first_output_unix_ms"] is None and first["idle_ms"] == 0
        around.cameras["door"].publish(bgr=True)
        app.do("medias = node.inputs.video_in.get(10)")
        taken = around.stats_when(lambda stats: stats["frames_taken"] == 1)
        assert (
            taken["latency_app_ms"]["count"] == 1
            and 0 < taken["latency_app_ms"]["p50"] <= taken["latency_app_ms"]["p99"]
        )
        app.do("node.outputs.video_out.put(medias)")
        put = around.stats_when(lambda stats: stats["frames_put"] == 1)
        assert put["first_output_unix_ms"] > 1500000000000


def test_the_supervisor_knows_who_speaks(around):
    with around.application() as app:
        heard = []
        while not any(message["type"] == "hello" for message in heard):
            heard += around.messages()
        hello = next(message for message in heard if message["type"] == "hello")
        assert (hello["pid"], hello["node"]) == (app.pid, "code")


def test_an_application_that_asks_for_nothing_while_frames_wait_is_idle_and_no_other_is(around):
    with around.application() as app:
        around.cameras["door"].publish(bgr=True)
        app.do("node.inputs.video_in.get(10)")
        assert around.stats_when(lambda stats: stats["frames_taken"] == 1)["idle_ms"] < 1000
        assert around.stats_when(lambda stats: True)["idle_ms"] < 1000, "no frame waits for it"
        around.cameras["door"].publish(bgr=True)
        first = around.stats_when(lambda stats: stats["idle_ms"] > 400)["idle_ms"]
        assert around.stats_when(lambda stats: stats["idle_ms"] > first)
        app.do("node.inputs.video_in.get(10)")
        app.begin("node.inputs.video_in.get(30)")
        around.stats_when(lambda stats: stats["idle_ms"] == 0)
        around.cameras["door"].publish(bgr=True)
        app.answer()


def test_whoever_waits_for_a_model_is_not_idle(tmp_path):
    kept = []
    with Surroundings(tmp_path, answer=kept.append) as around, around.application() as app:
        around.cameras["door"].publish(bgr=True)
        app.do("node.inputs.video_in.get(10)")
        app.begin("node.call(numpy.zeros((1, 3, 4, 4)), 'detector')")
        around.cameras["door"].publish(bgr=True)
        eventually(lambda: kept, "the call")
        around.stats_when(lambda stats: True)  # may have been said just before
        for _ in range(2):
            assert around.stats_when(lambda stats: stats["frames_taken"] == 1)["idle_ms"] == 0
        kept.pop().reply({"y": np.ones(1)})
        app.answer()
        around.stats_when(lambda stats: stats["idle_ms"] > 400)


def test_a_process_that_is_aborted_says_what_its_threads_did(around, tmp_path):
    app_file = tmp_path / "app.json"
    app_file.write_text(json.dumps(around.spec), encoding="utf-8")
    code = "import os, panoramasdk\nnode = panoramasdk.node()\ndef stuck():\n    os.abort()\nstuck()"
    ended = subprocess.run(
        [python(), "-c", code],
        env=dict(os.environ, PYTHONPATH=LIBS, BELVEDERE_APP=str(app_file)),
        stderr=subprocess.PIPE,
    )
    said = ended.stderr.decode()
    assert ended.returncode == -signal.SIGABRT
    assert "in stuck" in said and "_look_after" in said, said


def test_calls_are_counted(around):
    with around.application() as app:
        app.do("node.call(numpy.zeros((1, 3, 4, 4)), 'detector')")
        assert around.stats_when(lambda stats: stats["calls"] == 1)


def test_a_supervisor_that_comes_back_is_told_again(around, tmp_path):
    from framelink import sockets

    with around.application():
        around.stats_when(lambda stats: True)
        around._listener.close()
        for connection in around._control:
            connection.close()
        around._control.clear()
        (tmp_path / "app" / "control.sock").unlink()
        around._listener = sockets.listen(str(tmp_path / "app" / "control.sock"))
        assert around.stats_when(lambda stats: True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "does not describe"),
        ('{"instance_id": "x"}', "node"),
        ('{"instance_id": "x", "node": "n", "inputs": {"a": {"type": "video", "value": 1}}}', "video"),
        ('{"instance_id": "x", "node": "n", "inputs": {"a": {"type": "int32", "value": "many"}}}', "many"),
        ('{"instance_id": "x", "node": "n", "models": {"m": {}}}', "model_id"),
    ],
)
def test_a_process_that_is_no_application_is_told_so(tmp_path, content, words):
    file = tmp_path / "app.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NodeError, match=words):
        _spec.load(str(file))


def test_a_node_outside_of_belvedere_is_refused(tmp_path):
    with Interpreter("import panoramasdk", BELVEDERE_APP=str(tmp_path / "none.json")) as app:
        with pytest.raises(Raised, match="Belvedere has started") as caught:
            app.do("panoramasdk.node()")
        assert caught.value.kind == "NodeError"


def test_the_file_says_where_the_sockets_are(tmp_path):
    spec = _spec.parse({"instance_id": "i", "node": "n"})
    stream = {"camera_id": "a" * 90, "stream_id": "door", "folder": "short"}
    named = _spec.parse({"instance_id": "i", "node": "n", "inputs": {"a": {"type": "media", "streams": [stream]}}})
    assert spec.camera_socket(named.inputs["a"].streams[0]) == "/run/belvedere/cameras/short/frames.sock"
    assert spec.calls_socket() == "/run/belvedere/inference/calls.sock"
    assert spec.outputs_socket() == "/run/belvedere/display/outputs.sock"
    assert spec.control_socket() == "/run/belvedere/app/control.sock"
    assert json.dumps(spec.inputs) == "{}"
