"""Video for browsers: fragmented MP4 over a WebSocket, and snapshots. Every request needs a viewer token.

    GET /video/<instance_id>?token=…           WebSocket: text {"mime", "width", "height"}, a binary init segment, then
    one binary
                                               fragment a picture; text and init segment again when the picture's size
                                               changes
    GET /snapshot/<instance_id>.jpg?token=…    the newest composed picture

Each viewer's time line starts at 0 and has no gaps, whatever it misses: players need not be told of pauses and drops.
The token alone decides who may look; where the page came from does not matter. Must not know how pictures are made.
"""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import Mapping

from aiohttp import WSCloseCode, web

from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret
from belvedere.viewer import ViewerTokenError, check_viewer_token

from . import mp4
from .encoder import EncodedFrame, StreamFormat
from .video import Video

log = get_logger(__name__)

MAX_VIEWERS = 64
HEARTBEAT_S = 15.0
SEND_STALL_S = 20.0
"""A viewer that takes nothing for so long is gone."""
SEND_BUFFER_BYTES = 512 * 1024
"""In the kernel, per viewer; more would only be delay."""
MAX_MESSAGE_BYTES = 4096
"""Viewers have nothing to say; pings are smaller."""
SNAPSHOT_TIMEOUT_S = 5.0
JPEG_QUALITY = 85
FIRST_DURATION = mp4.TIMESCALE // 15
MIN_DURATION, MAX_DURATION = mp4.TIMESCALE // 1000, mp4.TIMESCALE // 2
"""Of a picture on the viewer's time line: a pause in the video makes no pause there, it only lets the player catch
up.
"""
STOP_TIMEOUT_S = 1.0


class Timeline:
    """Pictures' times for one viewer: from 0, without gaps.

    A picture is shown as long as the one before it took to be followed: so its duration is known when it is sent, and
    no picture has to wait for its successor.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._time = 0
        self._last_pts: int | None = None
        self._duration = FIRST_DURATION

    def fragment(self, frame: EncodedFrame) -> bytes:
        if self._last_pts is not None:
            self._duration = min(max(frame.pts_90k - self._last_pts, MIN_DURATION), MAX_DURATION)
        self._last_pts = frame.pts_90k
        self._sequence += 1
        sample = mp4.length_prefixed(frame.units)
        made = mp4.fragment(self._sequence, self._time, self._duration, frame.keyframe, sample)
        self._time += self._duration
        return made


class WebServer:
    """Serves the videos in `videos` (by instance id), which its owner changes."""

    def __init__(self, host: str, port: int, videos: Mapping[str, Video]) -> None:
        self.port = port
        self.refused = 0
        """Requests without a good token."""
        self._host = host
        self._videos = videos
        self._key: Secret[bytes] | None = None
        self._open: dict[web.WebSocketResponse, str] = {}
        app = web.Application()
        app.router.add_get("/video/{instance_id}", self._video)
        app.router.add_get("/snapshot/{instance_id}.jpg", self._snapshot)
        # No access log: addresses hold tokens.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S)

    def set_key(self, key: Secret[bytes] | None) -> None:
        """The viewer key that tokens are made with; without one nobody is let in."""
        self._key = key

    def viewers(self, instance_id: str) -> int:
        return sum(1 for looked_at in self._open.values() if looked_at == instance_id)

    async def start(self) -> None:
        """Raises OSError when the address cannot be listened on."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port, reuse_address=True)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        closing = [socket.close(code=WSCloseCode.GOING_AWAY, message=b"the appliance stops") for socket in self._open]
        if closing:
            tasks = [asyncio.ensure_future(one) for one in closing]
            _, pending = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
            for task in pending:
                task.cancel()
        await self._runner.cleanup()

    def _admit(self, request: web.Request) -> Video:
        """The video that the request's token opens. Raises an HTTP error that says why not."""
        instance_id = request.match_info["instance_id"]
        try:
            if self._key is None:
                raise web.HTTPServiceUnavailable(text="the appliance does not know its viewer key yet: try again\n")
            check_viewer_token(self._key.reveal(), request.query.get("token", ""), instance_id, time.time())
        except ViewerTokenError as error:
            self.refused += 1
            refusal = web.HTTPUnauthorized if error.status == 401 else web.HTTPForbidden
            raise refusal(text=f"{error}\n") from error
        video = self._videos.get(instance_id)
        if video is None:
            raise web.HTTPNotFound(text=f"{instance_id} shows no video on this appliance\n")
        return video

    async def _video(self, request: web.Request) -> web.StreamResponse:
        video = self._admit(request)
        if len(self._open) >= MAX_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_VIEWERS} viewers are connected already\n")
        response = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False)
        if not response.can_prepare(request).ok:
            raise web.HTTPUpgradeRequired(text="open this address as a WebSocket\n")
        raw = request.transport.get_extra_info("socket") if request.transport else None
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        await response.prepare(request)
        self._open[response] = video.instance_id
        sender = asyncio.create_task(self._send(response, video), name=f"viewer of {video.instance_id}")
        listener = asyncio.create_task(self._listen(response), name=f"viewer's messages for {video.instance_id}")
        try:
            await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._open[response]
            sender.cancel()
            listener.cancel()
            await asyncio.wait({sender, listener})
        if not sender.cancelled() and (error := sender.exception()) is not None:
            log.info("viewer gone", instance_id=video.instance_id, why=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()  # it takes nothing: a close frame would wait behind what it does not read
        else:
            await response.close(message=b"the video has ended")
        return response

    @staticmethod
    async def _listen(response: web.WebSocketResponse) -> None:
        """Until the viewer leaves. What it says is nothing to us."""
        async for _ in response:
            continue

    @staticmethod
    async def _send(response: web.WebSocketResponse, video: Video) -> None:
        """Until the video ends. Raises TimeoutError or ConnectionError when the viewer is gone."""
        viewer = video.join()
        timeline = Timeline()
        known: StreamFormat | None = None
        try:
            while (frame := await viewer.next()) is not None:
                async with asyncio.timeout(SEND_STALL_S):
                    if frame.format != known:
                        known = frame.format
                        about = {"mime": mp4.mime_type(known.sps), "width": known.width, "height": known.height}
                        await response.send_json(about)
                        await response.send_bytes(mp4.init_segment(known.width, known.height, known.sps, known.pps))
                    await response.send_bytes(timeline.fragment(frame))
        finally:
            video.leave(viewer)

    async def _snapshot(self, request: web.Request) -> web.Response:
        video = self._admit(request)
        viewer = video.join()
        try:
            async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                await viewer.next()
            picture = video.newest
        except TimeoutError:
            picture = None
        finally:
            video.leave(viewer)
        if picture is None:
            raise web.HTTPServiceUnavailable(text="no picture came in time: try again\n")

        def encode() -> bytes:
            buffer = io.BytesIO()
            picture.to_image().save(buffer, "JPEG", quality=JPEG_QUALITY)  # type: ignore[no-untyped-call]
            return buffer.getvalue()

        body = await asyncio.to_thread(encode)
        return web.Response(body=body, content_type="image/jpeg", headers={"Cache-Control": "no-store"})
