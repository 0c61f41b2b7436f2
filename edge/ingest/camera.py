"""One camera: connect, decode, hand on, and start again for ever. Knows PyAV; must not know where frames go.

One connection over TCP and one decoder. Every wait has a limit: `open_timeout_s` for a stream to be described,
`stall_s` for a frame.

libavformat hands on a picture when the next one begins: its parser ends a picture there. So each frame comes one frame
interval late (measured: 104 ms at 10 frames a second, 44 ms at 25, of which 3 ms are ours), and what arrives at the
moment that a picture is handed on is the beginning of the next. `capture_ns` of a frame is therefore the moment at
which the one before it was handed on: its own first packet's arrival. It leaves nothing of the delay out.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import av
import av.container
import av.error
from av.codec.context import Flags as CodecFlags

from belvedere.chassis.logs import get_logger
from edge.ingest import errors
from edge.ingest.address import Address
from edge.ingest.backoff import Backoff
from edge.ingest.errors import CameraError, CameraRefused, CameraUnsupported
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus
from edge.ingest.timestamps import TimestampValidator

log = get_logger(__name__)

CODECS = {"h264": "H.264", "hevc": "H.265"}
# A stream that ran this long was a good one: the next failure is a first one again. Without it, a camera that sends one
# frame and closes would be asked in a tight loop.
HEALTHY_S = 5.0
# Find out nothing by reading ahead: the description of the stream says what is in it, the decoder finds the rest. With
# libavformat's own limits the first frame is handed on after 1 to 2 s, together with all that came meanwhile.
PROBE = {"probesize": "32", "fpsprobesize": "0"}


class FrameSink(Protocol):
    """Where frames go."""

    def put(self, frame: av.VideoFrame, *, capture_ns: int, pts_us: int) -> tuple[int, int, bool]:
        """Hand on one frame. Gives the size as handed on, and whether it was (False: dropped, no slot was free)."""


class Camera:
    """The loop of one camera. `run` returns when `stop` is set."""

    def __init__(self, address: Address, sink: FrameSink, status: CameraStatus, settings: Settings) -> None:
        self._address = address
        self._sink = sink
        self._status = status
        self._settings = settings
        self._timestamps = TimestampValidator()
        self._backoff = Backoff()
        self._first_frame_ns = self._last_frame_ns = 0

    def run(self, stop: threading.Event) -> None:
        """Connect, decode and hand on until `stop`."""
        while not stop.is_set():
            self._first_frame_ns = self._last_frame_ns = time.monotonic_ns()
            try:
                self._stream(stop)
                continue
            except CameraError as error:
                failure = error
            if self._last_frame_ns - self._first_frame_ns > HEALTHY_S * 1e9:
                self._backoff.reset()
            if isinstance(failure, CameraRefused):
                # Nothing is won by asking at once with the same password, and an account may be locked for it.
                wait_s = self._backoff.next_s(self._settings.refused_retry_max_s, at_once=False)
            else:
                wait_s = self._backoff.next_s(self._settings.retry_max_s)
            log.warning("camera gives no frames", state=failure.state, reason=str(failure), retry_in_s=round(wait_s, 1))
            # The failure stays on show until frames come: a state that flickers between "refused" and "connecting" says
            # less.
            self._status.state(failure.state, str(failure))
            self._status.reconnect()
            self._timestamps.reconnected()
            stop.wait(wait_s)

    def _stream(self, stop: threading.Event) -> None:
        with self._open() as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            codec = context.name if context is not None else "unknown"
            if codec not in CODECS:
                raise CameraUnsupported(f"the camera sends {codec}; switch its stream to H.264 or H.265")
            # Threads within a frame. Across frames each would keep one frame back.
            stream.thread_type = "SLICE"
            context.thread_count = self._settings.decode_threads
            context.flags |= CodecFlags.copy_opaque
            self._status.stream(codec)
            log.info("camera opened", camera_address=str(self._address), codec=codec)
            self._first_frame_ns = self._last_frame_ns = time.monotonic_ns()
            begun_ns = time.monotonic_ns()
            for packet in self._packets(container, stream):
                arrival_ns = time.monotonic_ns()
                if stop.is_set():
                    return
                packet.opaque = begun_ns
                begun_ns = arrival_ns
                for frame in self._decode(packet):
                    self._hand_on(frame, arrival_ns)
                    self._last_frame_ns = arrival_ns
                if arrival_ns - self._last_frame_ns > self._settings.stall_s * 1e9:
                    raise errors.stalled(self._settings.stall_s)

    @contextlib.contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        began = time.monotonic()
        try:
            container = self._connect("video")
        except (av.error.FFmpegError, OSError) as error:
            raise self._open_error(error, time.monotonic() - began) from None
        with container:
            if not container.streams.video:
                raise CameraUnsupported("the stream has no video in it; switch the camera's video on")
            yield container

    def _connect(self, media: str) -> av.container.InputContainer:
        timeout_s = self._settings.open_timeout_s
        options = {
            "rtsp_transport": "tcp",
            "allowed_media_types": media,
            # libavformat's own limit, in microseconds, for one answer of the server; the pair below limits whole calls.
            "timeout": str(int(timeout_s * 1e6)),
            **PROBE,
        }
        return av.open(self._address.reveal(), mode="r", options=options, timeout=(timeout_s, self._settings.stall_s))

    def _open_error(self, error: av.error.FFmpegError | OSError, took_s: float) -> CameraError:
        """The typed error; never with the exception's text in it, which has the URL and its password."""
        settings, server = self._settings, self._address.server
        if (
            isinstance(error, av.error.InvalidDataError | av.error.ExitError)
            and took_s >= settings.open_timeout_s * 0.95
        ):
            return errors.no_answer(server, settings.open_timeout_s)
        if isinstance(error, av.error.HTTPOtherClientError) and self._is_audio_only():
            return CameraUnsupported("the stream has only sound in it, no video; check the path of the stream URL")
        if isinstance(error, av.error.OSError) and not self._resolves():
            return errors.no_such_host(self._address.host)
        return errors.from_open(error, server=server, path=self._address.path, timeout_s=settings.open_timeout_s)

    def _is_audio_only(self) -> bool:
        # Asking for video alone where there is none ends in a PLAY without a session: "4xx". So look for sound.
        try:
            with self._connect("audio") as container:
                return bool(container.streams.audio)
        except (av.error.FFmpegError, OSError):
            return False

    def _resolves(self) -> bool:
        # libavformat calls an unknown name an "input/output error".
        try:
            return bool(socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM))
        except OSError:
            return False

    def _packets(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.Packet[av.VideoStream]]:
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
        except (av.error.FFmpegError, OSError) as error:
            raise errors.from_read(error, stall_s=self._settings.stall_s) from None
        raise errors.closed()

    def _decode(self, packet: av.Packet[av.VideoStream]) -> list[av.VideoFrame]:
        try:
            return packet.decode()
        except av.error.FFmpegError:
            # Bits lost on the way, or a picture whose reference was lost: the next key frame mends it. If none comes,
            # it is a stall.
            self._status.undecodable()
            return []

    def _hand_on(self, frame: av.VideoFrame, arrival_ns: int) -> None:
        # The arrival of this frame's own packet: with B-frames it is not the one that was decoded last.
        capture_ns = frame.opaque if isinstance(frame.opaque, int) else arrival_ns
        camera_us = None
        if frame.pts is not None and frame.time_base is not None:
            camera_us = int(frame.pts * frame.time_base * 1_000_000)
        pts_us = self._timestamps.next(camera_us, capture_ns)
        width, height, handed_on = self._sink.put(frame, capture_ns=capture_ns, pts_us=pts_us)
        self._status.frame(width, height, dropped=not handed_on)
        self._status.state("streaming")
