"""One camera: connect, decode, hand on, and start again for ever. Must not know where frames go.

One connection and one decoder. Every wait has a limit: `open_timeout_s` for a stream to be described, `stall_s` for a
frame.

`capture_ns` of a frame is the arrival of its own last packet: from there on, what time passes is ours. (libavformat would
hand a picture on when the next one begins, one frame interval later: that is why `belvedere.rtsp` reads the camera.)
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import Protocol

import av

from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret
from belvedere.rtsp import ClientClosed, ClientError, ClientSettings, RtspClient
from edge.ingest import errors
from edge.ingest.address import Address
from edge.ingest.backoff import Backoff
from edge.ingest.decoder import Decoder, Undecodable
from edge.ingest.errors import CameraError, CameraRefused
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus
from edge.ingest.timestamps import TimestampValidator

log = get_logger(__name__)

# A stream that ran this long was a good one: the next failure is a first one again. Without it, a camera that sends one
# frame and closes would be asked in a tight loop.
HEALTHY_S = 5.0


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
        self._client: RtspClient | None = None

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

    def close(self) -> None:
        """From any thread, after `stop` was set: ends what `run` waits for at the camera."""
        client = self._client
        if client is not None:
            client.close()

    def _stream(self, stop: threading.Event) -> None:
        settings = self._settings
        how = ClientSettings(
            transport=settings.transport,
            open_timeout_s=settings.open_timeout_s,
            stall_timeout_s=settings.stall_s,
            verify_tls=settings.verify_tls,
        )
        try:
            with RtspClient(Secret(self._address.reveal()), settings=how) as client:
                self._client = client
                if not stop.is_set():
                    try:
                        self._read(client, stop)
                    finally:
                        if client.stats.packets:
                            log.info("camera closed", **asdict(client.stats))
        except ClientClosed:
            return
        except ClientError as error:
            raise errors.from_client(error, address=self._address, settings=settings) from None

    def _read(self, client: RtspClient, stop: threading.Event) -> None:
        description = client.open()
        decoder = Decoder(description, self._settings.decode_threads)
        self._status.stream(description.codec)
        log.info("camera opened", camera_address=str(self._address), codec=description.codec)
        self._first_frame_ns = self._last_frame_ns = time.monotonic_ns()
        for unit in client.units():
            if stop.is_set():
                return
            try:
                for frame, capture_ns, camera_us in decoder.decode(unit):
                    self._hand_on(frame, capture_ns, camera_us)
                    self._last_frame_ns = unit.last_packet_ns
            except Undecodable:
                # The next key frame mends it. If none comes, it is a stall.
                self._status.undecodable()
            if unit.last_packet_ns - self._last_frame_ns > self._settings.stall_s * 1e9:
                raise errors.stalled(self._settings.stall_s)

    def _hand_on(self, frame: av.VideoFrame, capture_ns: int, camera_us: int) -> None:
        pts_us = self._timestamps.next(camera_us, capture_ns)
        width, height, handed_on = self._sink.put(frame, capture_ns=capture_ns, pts_us=pts_us)
        self._status.frame(width, height, dropped=not handed_on)
        self._status.state("streaming")
