"""One camera: connect, hand its pictures to the feed, and start again for ever. Must not know where frames go.

One connection. Every wait has a limit: `open_timeout_s` for a stream to be described, `first_frame_s` for its first
picture, `stall_s` for each one after.

`capture_ns` of a frame is the arrival of its own last packet: from there on, what time passes is ours. (libavformat would
hand a picture on when the next one begins, one frame interval later: that is why `belvedere.rtsp` reads the camera.)
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict

from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret
from belvedere.rtsp import ClientClosed, ClientError, ClientSettings, RtspClient, StreamStalled
from edge.ingest import errors
from edge.ingest.address import Address
from edge.ingest.backoff import Backoff
from edge.ingest.errors import CameraError, CameraRefused
from edge.ingest.feed import Demand, Feed, FrameSink
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus
from edge.ingest.timestamps import TimestampValidator

log = get_logger(__name__)

# A stream that ran this long was a good one: the next failure is a first one again. Without it, a camera that sends one
# frame and closes would be asked in a tight loop.
HEALTHY_S = 5.0
# How often a connection that nobody needs is looked at, besides when somebody asks.
STANDBY_LOOK_S = 5.0
# A camera that is away for a month must not fill the log.
REPEAT_LOG_S = 60.0


class _NobodyLooks(Exception):
    """The connection is let go until a reader asks."""


class Camera:
    """The loop of one camera. `run` returns when `stop` is set."""

    def __init__(self, address: Address, sink: FrameSink, status: CameraStatus, settings: Settings) -> None:
        self._address = address
        self._sink = sink
        self._status = status
        self._settings = settings
        self._timestamps = TimestampValidator()
        self._demand = Demand(sink, settings.idle_after_s)
        self._backoff = Backoff()
        self._healthy_s = 0.0
        self._told = (0.0, "")
        self._begins_in_s: float | None = None
        """The longest that a connection took to its first picture."""
        self._client: RtspClient | None = None
        self._transport = address.transport or settings.transport

    def run(self, stop: threading.Event) -> None:
        """Connect, decode and hand on until `stop`."""
        while not stop.is_set():
            self._healthy_s = 0.0
            try:
                self._stream(stop)
                continue
            except _NobodyLooks:
                self._stand_by(stop)
                continue
            except CameraError as error:
                failure = error
            if self._healthy_s > HEALTHY_S:
                self._backoff.reset()
            if isinstance(failure, CameraRefused):
                # Nothing is won by asking at once with the same password, and an account may be locked for it.
                wait_s = self._backoff.next_s(self._settings.refused_retry_max_s, at_once=False)
            else:
                wait_s = self._backoff.next_s(self._settings.retry_max_s)
            self._tell(failure, wait_s)
            # The failure stays on show until frames come: a state that flickers between "refused" and "connecting" says
            # less.
            self._status.state(failure.state, str(failure))
            self._status.reconnect()
            self._between_connections()
            stop.wait(wait_s)

    def close(self) -> None:
        """From any thread, after `stop` was set: ends what `run` waits for at the camera."""
        client = self._client
        if client is not None:
            client.close()
        self._sink.wake()

    def _tell(self, failure: CameraError, wait_s: float) -> None:
        """To the log; the same thing again and again once a minute."""
        now_s, reason = time.monotonic(), str(failure)
        if reason == self._told[1] and now_s - self._told[0] < REPEAT_LOG_S:
            return
        self._told = (now_s, reason)
        tries = self._backoff.failures
        log.warning(
            "camera gives no frames", state=failure.state, reason=reason, tries=tries, retry_in_s=round(wait_s, 1)
        )

    def _between_connections(self) -> None:
        self._timestamps.reconnected()
        # What was seen before is not what is to be seen: who attaches now waits for a picture of now.
        self._sink.retire()

    def _stand_by(self, stop: threading.Event) -> None:
        log.info("no reader: connection closed")
        self._status.state("standby")
        self._between_connections()
        while not stop.is_set() and not self._demand():
            self._sink.wait_wanted(STANDBY_LOOK_S)
        self._status.state("connecting")

    def _stream(self, stop: threading.Event) -> None:
        settings = self._settings
        how = ClientSettings(
            transport=self._transport,
            open_timeout_s=settings.open_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
            stall_timeout_s=settings.stall_s,
            verify_tls=settings.verify_tls,
        )
        address = Secret(self._address.reveal())
        try:
            with RtspClient(address, settings=how, on_authenticate=self._status.authenticating) as client:
                self._client = client
                if not stop.is_set():
                    try:
                        self._read(client, stop)
                    finally:
                        self._status.connection_ended(client.stats)
                        if client.stats.packets:
                            log.info("camera closed", **asdict(client.stats))
        except ClientClosed:
            return
        except ClientError as error:
            raise errors.from_client(error, address=self._address, settings=settings) from None

    def _read(self, client: RtspClient, stop: threading.Event) -> None:
        settings = self._settings
        description = client.open()
        feed = Feed(description, self._sink, self._demand, self._status, self._timestamps, settings)
        self._status.stream(description.codec, self._transport, client.stats)
        log.info("camera opened", camera_address=str(self._address), codec=description.codec, decoder=feed.device)
        opened_ns = feed.alive_ns
        stall_ns, drops = int(settings.stall_s * 1e9), settings.idle == "drop"
        try:
            while not stop.is_set():
                try:
                    unit = client.receive()
                except StreamStalled:
                    self._wait_on(client, opened_ns)
                    continue
                if not feed.worked_since_ns:
                    self._begins_in_s = max(self._begins_in_s or 0.0, (unit.first_packet_ns - opened_ns) / 1e9)
                feed.unit(unit, client.receive_now)
                if unit.last_packet_ns - feed.alive_ns > stall_ns:
                    self._judge(feed, client, unit.last_packet_ns)
                if drops and self._sink.ready() and not self._demand():
                    raise _NobodyLooks
        finally:
            self._healthy_s = feed.healthy_s

    def _wait_on(self, client: RtspClient, opened_ns: int) -> None:
        """No picture has come for so long; the first one is waited for longer than the others."""
        waited_s = (time.monotonic_ns() - opened_ns) / 1e9
        if client.stats.units or client.stats.dropped_units or waited_s > self._patience_s():
            raise errors.stalled(self._settings.stall_s, client.stats) from None
        self._status.state("stalled", errors.no_picture_yet(waited_s, self._settings))

    def _patience_s(self) -> float:
        """How long a connection may bring nothing at all: what the camera is known to need for its first picture, with room to
        spare; for one that is not known, `first_frame_s`.
        """
        limit_s = self._settings.first_frame_s
        return (
            limit_s if self._begins_in_s is None else min(limit_s, max(self._settings.stall_s, 3 * self._begins_in_s))
        )

    def _judge(self, feed: Feed, client: RtspClient, now_ns: int) -> None:
        """Pictures come in, and for `stall_s` none has come out."""
        waited_s = (now_ns - feed.alive_ns) / 1e9
        if feed.seen_key or waited_s > self._settings.first_frame_s:
            raise errors.stalled(self._settings.stall_s, client.stats)
        self._status.state("stalled", errors.no_key_frame_yet(waited_s, self._settings))
