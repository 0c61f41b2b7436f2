"""All that an application finds in its sandbox, made of real parts: cameras, a call server, an output receiver, a control socket.

    with Surroundings(tmp_path, cameras=["door", "yard"]) as around:
        with around.application("import panoramasdk; node = panoramasdk.node()") as app:
            around.cameras["door"].publish(bgr=True)
            assert app.ask("len(node.inputs.video_in.get(10))") == 1

Valid on Python 3.7, like what it tests.
"""

import json
import queue
import select

import numpy as np

from framelink import CallServer, FrameName, FrameReader, OutputReceiver, RingGone, sockets
from tests.support.interpreter import Interpreter
from tests.support.shared_memory import NumberCamera, eventually

INSTANCE = "applicationInstance-abcdefghijklmnopqrstuvwxyz"
NODE = "import panoramasdk, numpy; node = panoramasdk.node()"
DETECTOR = {"model_id": "abc-FP32", "inputs": [{"name": "images", "shape": [1, 3, 4, 4], "dtype": "float32"}]}
PAIR = {
    "model_id": "pair-FP32",
    "inputs": [{"name": "a", "shape": [1, 2], "dtype": "int64"}, {"name": "b", "shape": [-1, 2], "dtype": "uint8"}],
}


class Surroundings:
    """`connected`: whether the output leads to a display. `answer(request)` serves the models."""

    def __init__(self, folder, cameras=("door",), connected=True, answer=None):
        self._folder = folder
        self._rings = {}
        for name in ["inference", "display", "app"] + ["cameras/" + camera for camera in cameras]:
            (folder / name).mkdir(parents=True)
        self.cameras = {camera: self.camera(camera) for camera in cameras}
        self.outputs = queue.Queue()
        self.display = OutputReceiver(str(folder / "display" / "outputs.sock"), self.outputs.put, self._ring)
        self.requests = []
        self.pictures = []
        self._answer = answer or _sums
        self.models = self.model_server()
        self.spec = {
            "instance_id": INSTANCE,
            "name": "test application",
            "node": "code",
            "entry": {"path": "python3", "name": "/panorama/app.py", "arguments": [], "environment": {}},
            "inputs": {
                "video_in": {"type": "media", "streams": [_stream(camera) for camera in cameras]},
                "threshold": {"type": "float32", "value": 50},
                "count": {"type": "int32", "value": 3},
                "label": {"type": "string", "value": "ü"},
                "enabled": {"type": "boolean", "value": True},
            },
            "outputs": {"video_out": {"type": "media", "connected": connected}},
            "models": {"detector": DETECTOR, "pair": PAIR},
            "socket_root": str(folder),
            "region": "us-east-1",
        }
        self._listener = sockets.listen(str(folder / "app" / "control.sock"))
        self._control = []

    def camera(self, name):
        """A camera's writer, new; after the old one was closed."""
        return NumberCamera(self._folder / "cameras" / name / "frames.sock", name)

    def model_server(self):
        """The call server, new; after the old one was closed."""

        def handler(request):
            self.requests.append((request.model_id, {name: np.array(value) for name, value in request.inputs.items()}))
            self.pictures.append(
                {name: p if isinstance(p, FrameName) else np.array(p) for name, p in request.pictures.items()}
            )
            self._answer(request)

        return CallServer(str(self._folder / "inference" / "calls.sock"), handler, name="inference")

    def application(self, setup=NODE):
        """The application's process."""
        app_file = self._folder / "app.json"
        app_file.write_text(json.dumps(self.spec), encoding="utf-8")
        return Interpreter(setup, BELVEDERE_APP=str(app_file))

    def output(self):
        """The next picture that reaches the display."""
        return self.outputs.get(timeout=30)

    def messages(self):
        """What the application has said on its control socket so far."""
        heard = []
        if select.select([self._listener], [], [], 0)[0]:
            connection, _ = self._listener.accept()
            self._control.append(connection)
        for connection in list(self._control):
            try:
                packet = sockets.receive_plain(connection)
                while packet is not None:
                    heard.append(json.loads(packet.decode()))
                    packet = sockets.receive_plain(connection)
            except RingGone:
                self._control.remove(connection)
                connection.close()
        return heard

    def say(self, message):
        """What the supervisor says, to whoever has introduced himself."""
        eventually(lambda: self.messages() is not None and self._control, "the connection")
        for connection in self._control:
            connection.send(json.dumps(message).encode())

    def stats_when(self, condition):
        """The first stats message from now on that meets the condition."""
        found = []

        def heard():
            found.extend(message for message in self.messages() if message["type"] == "stats" and condition(message))
            return found

        return eventually(heard, "the message")[0]

    def forget_rings(self):
        """A camera was replaced: the display looks into the new one's ring."""
        for reader in self._rings.values():
            reader.close()
        self._rings.clear()

    def close(self):
        for connection in [self._listener, *self._control]:
            connection.close()
        self.display.close()
        self.models.close()
        self.forget_rings()
        for camera in self.cameras.values():
            camera.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _ring(self, camera_id):
        if camera_id not in self._rings and camera_id in self.cameras:
            self._rings[camera_id] = FrameReader(self.cameras[camera_id].writer.path, "display")
        return self._rings.get(camera_id)


def _stream(camera):
    return {"camera_id": camera, "stream_id": camera + "_node", "stream_uri": "rtsp://192.0.2.1/" + camera}


def _sums(request):
    request.reply({"sum": np.array([value.sum() for value in request.inputs.values()]), "one": np.ones(1)})
