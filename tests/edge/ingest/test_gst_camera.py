"""Cameras of gst-rtsp-server: not our own server, so that it is not the only judge."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.edge.ingest.cameras import STALL_S, WAIT_S, camera, ingesting
from tests.support.clips import make_clip
from tests.support.gst_camera import GstCamera, require_gst

pytestmark = pytest.mark.debian


@pytest.fixture(autouse=True)
def gst() -> None:
    require_gst()


@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_frames_come_from_an_independent_camera_with_digest(codec: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", codec, 640, 360, 25, 2)
    with GstCamera(clip, user="admin", password="d1gest/#") as gst_camera:
        async with ingesting(tmp_path) as ingest:
            await ingest.want(
                camera("front", gst_camera.url, "admin", "d1gest/#"), camera("wrong", gst_camera.url, "admin", "no")
            )
            await ingest.state("front", "streaming")
            await ingest.state("wrong", "refused")
            with await ingest.reader("front") as reader:
                for _ in range(10):
                    with await asyncio.to_thread(reader.get, WAIT_S, bgr=True) as frame:
                        assert frame.bgr().shape == (360, 640, 3)
                        assert frame.bgr().max() > 190
            row = await ingest.row("front", lambda row: row["frames_decoded"] >= 10 and row["fps"] > 0)
            assert (row["codec"], row["frames_dropped"]) == (codec, 0)


async def test_a_frozen_camera_is_stalled_and_comes_back(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "h264", 320, 240, 25, 2)
    with GstCamera(clip) as gst_camera:
        async with ingesting(tmp_path, stall_s=STALL_S) as ingest:
            await ingest.want(camera("front", gst_camera.url))
            await ingest.state("front", "streaming")
            gst_camera.freeze()
            await ingest.state("front", "stalled")
            gst_camera.thaw()
            await ingest.state("front", "streaming")


async def test_a_stream_with_only_sound_in_it_is_unsupported(tmp_path: Path) -> None:
    with GstCamera(None, launch="audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0") as gst_camera:
        async with ingesting(tmp_path) as ingest:
            await ingest.want(camera("front", gst_camera.url))
            # It may answer 503 while it clears up after the first question: then the next try tells.
            row = await ingest.state("front", "unsupported")
            assert row["reason"]["code"] == "CAMERA_UNSUPPORTED"
            assert "only sound in it, no video" in row["reason"]["message"]


async def test_motion_jpeg_of_an_independent_camera_is_read(tmp_path: Path) -> None:
    launch = (
        "videotestsrc is-live=true pattern=white ! video/x-raw,format=I420,width=640,height=360,framerate=15/1"
        " ! jpegenc ! rtpjpegpay name=pay0"
    )
    with GstCamera(None, launch=launch) as gst_camera:
        async with ingesting(tmp_path) as ingest:
            await ingest.want(camera("front", gst_camera.url))
            await ingest.state("front", "streaming")
            with await ingest.reader("front") as reader:
                for _ in range(5):
                    with await asyncio.to_thread(reader.get, WAIT_S, bgr=True) as frame:
                        assert frame.bgr().shape == (360, 640, 3)
                        # Its white is 235, and JPEG means that in full range: 16 + 235 * 219 / 255 in planes.
                        assert abs(int(frame.bgr().min()) - 235) <= 2
                        assert abs(int(frame.planes()[0].min()) - 218) <= 2
            row = await ingest.row("front", lambda row: row["frames_decoded"] > 5)
            assert (row["codec"], row["undecodable"], row["drops"]["lost_packets"]) == ("mjpeg", 0, 0)
            assert gst_camera.connections() == 1
