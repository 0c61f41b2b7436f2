"""An independent camera: gst-rtsp-server from Debian, in a process of its own. Not ours, so that our own RTSP server is
not its only judge.

    with GstCamera(clip, user="admin", password="secret") as camera:
        av.open(camera.url)

Plays an H.264 or H.265 clip in a loop in real time, one shared stream for all who watch, with digest authentication
where a user is given. `launch` is a GStreamer pipeline instead of the clip, ending in a payloader named `pay0`.
`freeze()` stops the frames and keeps the connections; `thaw()` lets them go on. `connections()` counts the clients now
connected. Tests that use it carry `@pytest.mark.debian` and call `require_gst()` first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIST_PACKAGES = "/usr/lib/python3/dist-packages"
PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
ROOT = Path(__file__).parents[2]


def require_gst() -> None:
    """Skip the calling test where gst-rtsp-server is missing, and name the packages."""
    import pytest

    if not Path(DIST_PACKAGES, "gi").is_dir() or not list(
        Path("/usr/lib").glob("*/girepository-1.0/GstRtspServer-1.0.typelib")
    ):
        pytest.skip(f"needs Debian packages: {PACKAGES}")


class GstCamera:
    """The camera's process, seen from the test."""

    def __init__(
        self,
        clip: Path | None,
        *,
        user: str | None = None,
        password: str | None = None,
        mount: str = "/stream",
        launch: str | None = None,
    ):
        self._config = {"clip": str(clip), "user": user, "password": password, "mount": mount, "launch": launch}
        self.mount = mount
        self.port = 0
        self._answers: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Without credentials."""
        return f"rtsp://127.0.0.1:{self.port}{self.mount}"

    def __enter__(self) -> GstCamera:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.gst_camera"],
            cwd=ROOT,
            env=os.environ | {"GST_DEBUG": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self.port = self._ask(self._config, START_TIMEOUT_S)["port"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def freeze(self) -> None:
        """No more frames; connections stay."""
        self._ask({"command": "freeze"}, STOP_TIMEOUT_S)

    def thaw(self) -> None:
        """Frames again."""
        self._ask({"command": "thaw"}, STOP_TIMEOUT_S)

    def connections(self) -> int:
        """Clients connected now."""
        return int(self._ask({"command": "connections"}, STOP_TIMEOUT_S)["connections"])

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            with self._arrived:
                self._answers.append(json.loads(line))
                self._arrived.notify_all()
        with self._arrived:
            self._answers.append({"error": "the camera's process has ended"})
            self._arrived.notify_all()

    def _ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        with self._arrived:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            if not self._arrived.wait_for(lambda: bool(self._answers), timeout_s):
                raise TimeoutError(
                    f"gst-rtsp-server: no answer within {timeout_s} s to {question.get('command', 'start')}"
                )
            answer = self._answers.pop(0)
        if "error" in answer:
            raise RuntimeError(f"gst-rtsp-server: {answer['error']}")
        return answer


# From here on: inside the camera's process.


def _packets(clip: Path) -> Iterator[tuple[bytes, float]]:
    """The clip's access units as Annex B, for ever, each with the seconds until the next."""
    import av
    from av.bitstream import BitStreamFilterContext

    while True:
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            name = stream.codec_context.name
            rate = float(stream.average_rate or 25)
            to_annex_b = BitStreamFilterContext(f"{'hevc' if name == 'hevc' else 'h264'}_mp4toannexb", stream)
            for packet in container.demux(stream):
                if packet.size:
                    for filtered in to_annex_b.filter(packet):
                        yield bytes(filtered), 1 / rate


def _serve() -> None:
    if DIST_PACKAGES not in sys.path:
        sys.path.append(DIST_PACKAGES)
    import av
    import gi  # type: ignore[import-not-found]

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]

    Gst.init(None)
    config = json.loads(sys.stdin.readline())
    running, clients = threading.Event(), set()
    running.set()

    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service("0")
    factory = GstRtspServer.RTSPMediaFactory.new()
    if config["launch"]:
        factory.set_launch(f"( {config['launch']} )")
    else:
        with av.open(config["clip"]) as container:
            codec = "h265" if container.streams.video[0].codec_context.name == "hevc" else "h264"
        caps = f"video/x-{codec},stream-format=byte-stream,alignment=au"
        source = f'appsrc name=source is-live=true format=time do-timestamp=true block=true caps="{caps}"'
        factory.set_launch(f"( {source} ! {codec}parse ! rtp{codec}pay name=pay0 pt=96 config-interval=1 )")
    factory.set_shared(True)

    def configure(_factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name("source")
        if source is None:
            return
        ended = threading.Event()
        media.connect("unprepared", lambda *_: ended.set())

        def feed() -> None:
            due = time.monotonic()
            for data, seconds in _packets(Path(config["clip"])):
                running.wait()
                due = max(due + seconds, time.monotonic() - 1)
                if ended.wait(max(0.0, due - time.monotonic())):
                    return
                if source.emit("push-buffer", Gst.Buffer.new_wrapped(data)) != Gst.FlowReturn.OK:
                    return

        threading.Thread(target=feed, daemon=True).start()

    factory.connect("media-configure", configure)
    if config["user"] is not None:
        auth = GstRtspServer.RTSPAuth.new()
        auth.set_supported_methods(gi.repository.GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
        auth.add_digest(config["user"], config["password"], token)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, True)
        permissions.add_permission_for_role("viewer", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, True)
        factory.set_permissions(permissions)
        server.set_auth(auth)
    server.get_mount_points().add_factory(config["mount"], factory)

    def connected(_server: Any, client: Any) -> None:
        clients.add(client)
        client.connect("closed", clients.discard)

    server.connect("client-connected", connected)
    server.attach(None)
    _say({"port": server.get_bound_port()})
    loop = GLib.MainLoop()

    def listen() -> None:
        for line in sys.stdin:
            command = json.loads(line)["command"]
            if command == "freeze":
                running.clear()
            elif command == "thaw":
                running.set()
            _say({"connections": len(clients)})
        loop.quit()

    threading.Thread(target=listen, daemon=True).start()
    loop.run()


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
