"""BGR that is made when somebody looks: by the real process of a camera, and with the camera's own colours."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from belvedere.rtsp import RtspServer
from edge.ingest.pictures import Pictures
from edge.ingest.ring import CameraRing
from framelink import Frame, FrameReader
from tests.edge.ingest.cameras import ScriptedCamera, camera, ingesting
from tests.support.clips import make_clip, pattern
from tests.support.interpreter import Interpreter

WIDTH, HEIGHT = 320, 240
APPLICATION = """
import panoramasdk
node = panoramasdk.node()
def take(count, every):
    "Of each frame, whether its BGR was there before; each of those looked at has some."
    before = []
    for number in range(count):
        one, = node.inputs.video_in.get(20)
        before.append(one._picture.info.has_bgr)
        if number % every == 0:
            assert one.image.shape == (240, 320, 3) and one.image.std() > 10
    return before
"""


async def test_an_application_that_looks_at_every_third_frame_has_a_third_of_them_converted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "h264", WIDTH, HEIGHT, 25, 2)
    stream = {"camera_id": "front", "stream_id": "front", "stream_uri": ""}
    spec = {
        "instance_id": "instance", "node": "code", "socket_root": str(tmp_path),
        "inputs": {"video_in": {"type": "media", "streams": [stream]}}, "models": {},
    }  # fmt: skip
    (tmp_path / "app.json").write_text(json.dumps(spec), encoding="utf-8")
    async with RtspServer("127.0.0.1", 0) as server, ingesting(tmp_path / "cameras") as ingest:
        server.add("front", ScriptedCamera(clip))
        await ingest.want(camera("front", server.url("front")))
        await ingest.state("front", "streaming")
        with Interpreter(APPLICATION, BELVEDERE_APP=str(tmp_path / "app.json")) as app:
            in_advance = await asyncio.to_thread(app.ask, "take(45, 3)")
            assert in_advance[0] and not any(in_advance[-15:])
            assert not any(await asyncio.to_thread(app.ask, "take(60, 3)"))
            # It took 105, and looked at 15, some of them with BGR in advance, and at 20.
            row = await ingest.row("front", lambda row: row["frames_delivered"] >= 105)
            assert 20 < row["bgr_late"] <= 15 + 20
            # Who looks at every frame has them in advance again, and none is made late any more.
            in_advance = await asyncio.to_thread(app.ask, "take(75, 1)")
            assert all(in_advance[-30:])


def picture(number: int, colorspace: int, full: bool = False) -> av.VideoFrame:
    format = "yuvj420p" if full else "yuv420p"
    frame = av.VideoFrame.from_ndarray(pattern(number, WIDTH, HEIGHT), format="rgb24").reformat(format=format)
    frame.colorspace = colorspace
    frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("colorspace", [1, 2, 5])
def test_a_frame_has_its_cameras_colours_however_late_its_bgr_is_made(
    colorspace: int, full: bool, tmp_path: Path
) -> None:
    ring = CameraRing(tmp_path / "frames.sock", "test", 6)
    try:
        first = picture(0, colorspace, full)
        wanted = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        Pictures().copy_bgr(first, wanted)
        ring.put(first, capture_ns=0, pts_us=0)
        held: list[Frame] = []
        with FrameReader(tmp_path / "frames.sock", "test") as reader:
            held.append(reader.get(20, bgr=False))
            for number in range(1, 4):
                # Another colour space since.
                ring.put(picture(number, 6 if colorspace == 1 else 1, full), capture_ns=number, pts_us=number)
            assert held[0].make_bgr()
            apart = np.abs(held[0].bgr().astype(int) - wanted)
            # The planes have fewer levels than a camera of full range.
            assert apart.max() <= (4 if full else 0) and apart.mean() < 2
            assert ring.counts().bgr_late == 1
    finally:
        ring.close()
