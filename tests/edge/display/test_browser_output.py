"""What a browser gets: fragmented MP4 over a WebSocket, decoded with PyAV and played by Chromium."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
import pytest

from edge.display import web
from tests.edge.display.conftest import CAMERA, INSTANCE, Shown, output
from tests.edge.display.test_rtsp_output import box_of, red
from tests.support.browser import live_page
from tests.support.showing import Showing
from tests.support.waiting import until

PAGE = """<!doctype html><video id=v muted autoplay playsinline></video><script>
const v = document.getElementById('v'), ms = new MediaSource(), queue = []; let sb;
v.src = URL.createObjectURL(ms);
const pump = () => { if (sb && !sb.updating && queue.length) sb.appendBuffer(queue.shift()); };
ms.onsourceopen = () => {
  const ws = new WebSocket('%s'); ws.binaryType = 'arraybuffer';
  ws.onmessage = m => {
    if (typeof m.data === 'string') {
      window.about = JSON.parse(m.data);
      if (!sb) { sb = ms.addSourceBuffer(window.about.mime); sb.onupdateend = pump; }
    } else { queue.push(m.data); pump(); }
  };
};
</script>"""


async def fragments(url: str, count: int) -> tuple[dict[str, Any], bytes, list[bytes]]:
    """The first message, the init segment and so many fragments."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
        about = json.loads(await ws.receive_str(timeout=30))
        init = await ws.receive_bytes(timeout=30)
        return about, init, [await ws.receive_bytes(timeout=30) for _ in range(count)]


async def status_of(url: str) -> int:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(url):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


async def test_the_websocket_carries_an_mp4_with_the_boxes_in_it(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE, rects=[(0.25, 0.25, 0.75, 0.5)]):
        await until(lambda: shown.row()["frames_received"] > 0)
        about, init, parts = await fragments(shown.websocket(), 15)
    assert (about["width"], about["height"]) == (640, 360)
    assert about["mime"].startswith('video/mp4; codecs="avc1.')
    with av.open(io.BytesIO(init + b"".join(parts))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 15
    assert frames[0].key_frame
    assert np.allclose(box_of(red(frames[-1].to_ndarray(format="rgb24"))), (160, 90, 481, 181), atol=2)
    times = [frame.time for frame in frames]
    assert times[0] == 0
    # No step is a jump: of the camera's clock, hours away. How even they are is the machine's affair.
    assert all(0 < after - before < 60 for before, after in pairwise(times))


async def test_a_late_viewer_starts_at_a_key_frame_and_at_time_zero(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE):
        await until(lambda: shown.row()["frames_received"] > 0)
        async with aiohttp.ClientSession() as session, session.ws_connect(shown.websocket()) as first:
            while shown.row()["frames_displayed"] <= 8:
                await first.receive(timeout=30)
            # The first one looks on: where nobody did, the encoder would be another one.
            _, init, parts = await fragments(shown.websocket(), 3)
            assert shown.row()["encoder_starts"] == 1
        with av.open(io.BytesIO(init + b"".join(parts))) as container:
            frames = list(container.decode(video=0))
        assert frames[0].key_frame
        assert frames[0].time == 0


async def test_only_a_good_token_opens_the_video(shown: Shown) -> None:
    other = "applicationInstance-bbbbbbbbbbbbbbbbbbbbbbbbbb"
    await shown.apply(output(), output(other, "second"))
    good = shown.websocket()
    assert await status_of(good.split("?")[0]) == 403
    assert await status_of(good.replace(INSTANCE, other)) == 403
    assert await status_of(shown.websocket(key=b"x" * 32)) == 403
    assert await status_of(shown.websocket(expires_in_s=-5)) == 401
    assert await status_of(good) == 101
    await shown.apply(output(other, "second"))
    assert await status_of(good) == 404
    assert shown.row(other)["encoder_starts"] == 0


async def test_a_viewer_that_never_reads_costs_the_others_nothing(shown: Shown, monkeypatch: Any) -> None:
    monkeypatch.setattr(web, "SEND_STALL_S", 4.0)  # above what a busy machine keeps the other viewer from reading
    monkeypatch.setattr("edge.display.viewer.MAX_QUEUED_FRAMES", 4)
    monkeypatch.setattr(web, "SEND_BUFFER_BYTES", 4096)
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE, noisy=True):
        await until(lambda: shown.row()["frames_received"] > 0)
        url = shown.websocket()
        host, port = url.split("/")[2].split(":")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((host, int(port)))
            path = url.split(port, 1)[1]
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            deaf.sendall((head + key).encode())
            await until(lambda: shown.row()["viewers"] == 1)
            _, _, parts = await fragments(url, 40)
            assert len(parts) == 40
            video = shown.display._videos[INSTANCE]
            await until(lambda: video.viewers == 0)
            assert shown.row()["drops"]["viewer_behind"] == video.viewers_dropped > 0


async def test_a_new_size_brings_a_new_init_segment(shown: Shown) -> None:
    await shown.apply(output())
    async with aiohttp.ClientSession() as session:
        with Showing(shown.paths, CAMERA, INSTANCE, 320, 240):
            await until(lambda: shown.row()["frames_received"] > 0)
            ws = await session.ws_connect(shown.websocket())
            assert json.loads(await ws.receive_str(timeout=30))["width"] == 320
        with Showing(shown.paths, CAMERA, INSTANCE, 640, 480):
            async with asyncio.timeout(30):
                while (message := await ws.receive()).type != aiohttp.WSMsgType.TEXT:
                    continue
            assert json.loads(message.data)["width"] == 640
            assert b"ftyp" in (await ws.receive_bytes(timeout=30))[:16]
        await ws.close()


async def test_a_removed_output_ends_its_viewers(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE) as app:
        async with aiohttp.ClientSession() as session, session.ws_connect(shown.websocket()) as ws:
            await ws.receive_str(timeout=30)
            await shown.apply()
            async with asyncio.timeout(30):
                async for _ in ws:
                    continue
        await until(lambda: app.in_flight == 0)  # the application goes on; its pictures are given back
    assert shown.display.status() == []


async def test_a_snapshot_is_a_jpeg_of_the_composed_picture(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE, rects=[(0.25, 0.25, 0.75, 0.5)]):
        await until(lambda: shown.row()["frames_received"] > 0)
        async with aiohttp.ClientSession() as session, session.get(shown.snapshot()) as response:
            assert response.status == 200
            assert response.content_type == "image/jpeg"
            body = await response.read()
        async with aiohttp.ClientSession() as session, session.get(shown.snapshot().split("?")[0]) as response:
            assert response.status == 403
    with av.open(io.BytesIO(body), format="mjpeg") as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.allclose(box_of(red(picture)), (160, 90, 481, 181), atol=4)


@pytest.mark.debian
async def test_chromium_plays_it(shown: Shown, tmp_path: Path) -> None:
    await shown.apply(output())
    page_file = tmp_path / "page.html"
    page_file.write_text(PAGE % shown.websocket())

    def look() -> tuple[float, float, list[int]]:
        with live_page(page_file.as_uri()) as page:
            page.wait_for_function("document.getElementById('v').currentTime > 0.5", timeout=60_000)
            before = page.evaluate("document.getElementById('v').currentTime")
            page.wait_for_function(f"document.getElementById('v').currentTime > {before} + 1", timeout=60_000)
            now = page.evaluate("document.getElementById('v').currentTime")
            return before, now, page.evaluate("[v.videoWidth, v.videoHeight]")

    with Showing(shown.paths, CAMERA, INSTANCE):
        await until(lambda: shown.row()["frames_received"] > 0)
        before, now, size = await asyncio.to_thread(look)
    assert now > before
    assert size == [640, 360]
