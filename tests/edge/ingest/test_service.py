"""`python -m edge.ingest` on a real local bus."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from belvedere.chassis.edge import CommandFailed, ask
from belvedere.chassis.paths import EdgePaths
from belvedere.chassis.secret import Secret
from belvedere.rtsp import FileSource, RtspServer
from edge.ingest.service import wanted_cameras
from framelink import FrameReader
from tests.support.clips import make_clip
from tests.support.edge_bus import edge_bus, edge_process


async def test_the_wanted_set_becomes_streams_and_every_change_is_told(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "h264", 320, 240, 25, 2)
    async with (
        RtspServer("127.0.0.1", 0, users={"watcher": Secret("c4nary-good")}) as server,
        edge_bus(tmp_path) as bus,
        edge_process("ingest", tmp_path, bus) as ingest,
    ):
        server.add("front", FileSource(clip))
        rows = [
            {
                "camera_id": "front-1.0-0a1b2c3d",
                "url": server.url("front"),
                "username": "watcher",
                "password": "c4nary-good",
                "paused": False,
            },
            {
                "camera_id": "back-1.0-0a1b2c3d",
                "url": server.url("front"),
                "username": "watcher",
                "password": "c4nary-bad",
                "paused": False,
            },
        ]
        assert await ask(tmp_path, "ingest", "apply", {"cameras": rows}) == {"ok": True}

        def states(status: dict[str, list[dict[str, str]]]) -> dict[str, str]:
            return {row["camera_id"].split("-")[0]: row["state"] for row in status["cameras"]}

        status = await ingest.status(lambda status: states(status) == {"front": "streaming", "back": "refused"})
        reasons = {row["camera_id"]: row["reason"] for row in status["cameras"]}
        assert reasons["front-1.0-0a1b2c3d"] is None
        assert reasons["back-1.0-0a1b2c3d"]["code"] == "CAMERA_UNAUTHORIZED"
        # Not on this loop, which is the camera's, too: where nothing is decoded any more, a frame takes a picture of it.
        socket = EdgePaths(tmp_path).camera_socket("front-1.0-0a1b2c3d")
        with (
            await asyncio.to_thread(FrameReader, socket, "test") as reader,
            await asyncio.to_thread(reader.get, 40.0) as frame,
        ):
            assert (frame.info.width, frame.info.height) == (320, 240)

        rows[0]["paused"] = True
        await ask(tmp_path, "ingest", "apply", {"cameras": rows[:1]})
        await ingest.status(lambda status: states(status) == {"front": "paused"})
    logs = ingest.logs()
    assert "wrong user name or password" in logs
    assert "c4nary" not in logs


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "cameras: must be a list of objects"),
        (
            {"cameras": [{"camera_id": "../x", "url": "rtsp://h/"}]},
            "cameras[].camera_id: must be a name without a slash",
        ),
        ({"cameras": [{"camera_id": "a", "url": "rtsp://h/", "password": 7}]}, "cameras[].password: must be a string"),
    ],
)
def test_a_wanted_set_that_is_none_is_refused_by_name(body: dict[str, object], says: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        wanted_cameras(body)
    assert caught.value.code == "INVALID_REQUEST"
    assert says in caught.value.message
