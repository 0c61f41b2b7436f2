"""One application's video: newest pictures in, composed frames out to the screen and encoded ones to every viewer. It works only while
somebody looks.

Pictures arrive on framelink's threads (`receive`), are composed and encoded on a thread of this video's own, and reach
viewers on the event loop. Between receiver and encoder at most one picture a stream waits: a newer one takes its place,
counted.
Must not know how viewers are connected.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import av

from belvedere.chassis.logs import get_logger
from framelink import FramelinkError, Output

from .composer import MAX_STREAMS, MIN_SIDE, Composer
from .encoder import EncodedFrame, Encoder, EncoderError, EncoderOptions, StreamFormat
from .pictures import PictureTooSmall, copy_picture
from .screen import Screen
from .viewer import Viewer

log = get_logger(__name__)

TICK_S = 0.5
"""How often a video without new pictures is looked at, and a placard's seconds go on."""
FIRST_PICTURE_WAIT_S = 0.7
"""For a picture after the first viewer joined, before a placard is shown."""
GRID_INTERVAL_S = 1 / 30
"""Several streams do not come in step: a grid is encoded at most this often."""
MAX_CAPTURE_AGE_NS = 2_000_000_000
THREAD_STOP_TIMEOUT_S = 2.0
TEXTS_KEPT = 32
"""Different texts of labels that the status names."""
LATENCIES_KEPT = 2000
TIMES_KEPT = 300


class PictureGone(Exception):
    """A sender gave its picture away while it was being shown."""


class Video:
    """The video of one application instance's sink."""

    def __init__(self, instance_id: str, node: str, application: str, options: EncoderOptions, stale_s: float) -> None:
        self.instance_id = instance_id
        self.node = node
        self.application = application
        self.received = 0
        """Pictures that came from the application."""
        self.rects = self.labels = 0
        """Boxes and labels in them, altogether."""
        self.pictures_with_rects = 0
        self.replaced = 0
        """Pictures that a newer one overtook before they were encoded."""
        self.unusable = 0
        """Pictures that could not be read or are too small."""
        self.beyond = 0
        """Pictures of streams beyond the largest grid."""
        self.screen_behind = 0
        """Composed pictures that the screen was too slow for."""
        self.displayed = 0
        """Pictures shown to a viewer or on the screen."""
        self.encoder_starts = 0
        """How often an encoder was started: with nobody looking, never."""
        self.viewers_dropped = 0
        """Frames that slow viewers, now gone, did not get."""
        self.first_output_ms: int | None = None
        """Unix time of the first picture, milliseconds."""
        self._options = options
        self._stale_s = stale_s
        self._loop = asyncio.get_running_loop()
        self._viewers: set[Viewer] = set()
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._draw_ms: deque[float] = deque(maxlen=TIMES_KEPT)
        self._encode_ms: deque[float] = deque(maxlen=TIMES_KEPT)
        self.bytes_out = 0
        """Of encoded video, counted once for all viewers."""
        self._latency_count = 0
        # Below: shared with the receiver's and the encoder's thread, under the condition's lock.
        self._changed = threading.Condition()
        self._mail: dict[str, Output] = {}
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._first_node = ""
        self._looked_at = False
        self._screen: Screen | None = None
        self._key_wanted = False
        self._thread: threading.Thread | None = None
        self._composer = Composer(application, stale_s)
        self._format: StreamFormat | None = None
        self._newest: av.VideoFrame | None = None
        self._texts: dict[str, None] = {}

    # On framelink's threads.

    def receive(self, output: Output) -> None:
        """Takes a picture over; its `done()` is called here or by the encoder's thread, in any case soon."""
        info = output.info
        unneeded: Output | None = output
        with self._changed:
            self.received += 1
            self.rects += len(output.rects)
            self.labels += len(output.labels)
            self.pictures_with_rects += bool(output.rects)
            self._remember(output)
            self._first_node = self._first_node or output.node
            # Two nodes of one application may show the same camera, each with boxes of its own.
            alone = output.node == self._first_node
            stream_id = output.stream_id if alone else f"{output.node}/{output.stream_id}"
            if self.first_output_ms is None:
                self.first_output_ms = time.time_ns() // 1_000_000
            if stream_id in self._seen or len(self._seen) < MAX_STREAMS:
                self._seen[stream_id] = (info.width, info.height, time.monotonic())
                if self._needed:
                    unneeded = self._mail.pop(stream_id, None)
                    self.replaced += unneeded is not None
                    self._mail[stream_id] = output
                    self._changed.notify()
            else:
                self.beyond += 1
        if unneeded is not None:
            unneeded.done()

    def _remember(self, output: Output) -> None:
        for text, _, _ in output.labels[:TEXTS_KEPT]:
            self._texts.pop(text, None)
            self._texts[text] = None
        while len(self._texts) > TEXTS_KEPT:
            del self._texts[next(iter(self._texts))]

    # On the event loop.

    def texts(self) -> list[str]:
        """The labels' texts, each once, the newest last."""
        with self._changed:
            return list(self._texts)

    def drops(self) -> dict[str, int]:
        """What was not shown, by cause: pictures, and frames of one viewer."""
        return {
            "overtaken": self.replaced,
            "unusable": self.unusable,
            "too_many_streams": self.beyond,
            "screen_behind": self.screen_behind,
            "viewer_behind": self.viewers_dropped + sum(viewer.dropped for viewer in self._viewers),
        }

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    @property
    def encoding(self) -> bool:
        """Whether the encoder runs."""
        return self._thread is not None

    def join(self) -> Viewer:
        """A new viewer: it gets a key frame at once, or as soon as there is a picture."""
        viewer = Viewer()
        self._viewers.add(viewer)
        with self._changed:
            self._looked_at = self._key_wanted = True
            self._start()
            self._changed.notify()
        return viewer

    @property
    def picture_age_s(self) -> float | None:
        """Of the newest picture of any of its streams; None before the first."""
        with self._changed:
            newest = max((seen_s for _, _, seen_s in self._seen.values()), default=None)
        return None if newest is None else time.monotonic() - newest

    def show_on(self, screen: Screen | None) -> None:
        """Has the screen from now on, or no longer. What is on it costs no encoding."""
        with self._changed:
            self._screen = screen
            if screen is not None:
                self._start()
            self._changed.notify()

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Why each of its streams would show nothing at this moment, by stream id: what a placard says."""
        self._composer.explain(reasons)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"display {self.application}", daemon=True)
            self._thread.start()

    @property
    def _needed(self) -> bool:
        """Whether anybody sees what would be composed. Under the lock."""
        return self._looked_at or self._screen is not None

    def leave(self, viewer: Viewer) -> None:
        """After the last one the encoder stops."""
        if viewer in self._viewers:
            self._viewers.discard(viewer)
            self.viewers_dropped += viewer.dropped
            if not self._viewers:
                with self._changed:
                    self._looked_at = False
                    self._changed.notify()

    def want_key_frame(self) -> None:
        """The next picture becomes a key frame; without one, the last picture, at the next tick."""
        with self._changed:
            self._key_wanted = True

    async def describe(self) -> StreamFormat:
        """The format that a viewer who joins now will get first, as far as it can be known. Raises EncoderError."""
        with self._changed:
            if self._thread is not None and self._format is not None:
                return self._format
            if self._thread is None:
                self._note_seen()
            size = self._composer.size
            if self._format is not None and size == (self._format.width, self._format.height):
                return self._format
        return (await asyncio.to_thread(Encoder, *size, self._options)).format

    @property
    def newest(self) -> av.VideoFrame | None:
        """The frame composed last; only while somebody looks."""
        return self._newest

    def latency_ms(self) -> dict[str, float | int | None]:
        """Camera to display, of the newest pictures that were encoded."""
        return {**_quantiles(self._latencies_ms), "count": self._latency_count}

    def draw_ms(self) -> dict[str, float | None]:
        """Copying pictures in and composing a frame with its boxes and labels."""
        return _quantiles(self._draw_ms)

    def encode_ms(self) -> dict[str, float | None]:
        """Encoding a frame."""
        return _quantiles(self._encode_ms)

    async def close(self) -> None:
        """Ends the viewers and the encoder."""
        self.show_on(None)
        for viewer in tuple(self._viewers):
            viewer.end()
            self.leave(viewer)
        thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join, THREAD_STOP_TIMEOUT_S)
            if thread.is_alive():
                log.error("encoder did not stop in time", instance_id=self.instance_id, timeout_s=THREAD_STOP_TIMEOUT_S)

    def _publish(
        self, frame: EncodedFrame, pictures: int, latencies_ms: Sequence[float], draw_ms: float, encode_ms: float
    ) -> None:
        self._draw_ms.append(draw_ms)
        self._encode_ms.append(encode_ms)
        self.bytes_out += sum(len(unit) for unit in frame.units)
        if self._viewers:
            self.displayed += pictures
            self._latencies_ms.extend(latencies_ms)
            self._latency_count += len(latencies_ms)
        for viewer in self._viewers:
            viewer.offer(frame)

    def _shown(self, pictures: int, draw_ms: float) -> None:
        self.displayed += pictures
        self._draw_ms.append(draw_ms)

    def _failed(self) -> None:
        for viewer in self._viewers:
            viewer.end()

    # On the encoder's thread.

    def _run(self) -> None:
        try:
            self._show_while_needed()
        except EncoderError as error:
            log.error("video cannot be encoded", instance_id=self.instance_id, why=str(error))
            self._give_up()
        except Exception:
            log.exception("video failed", instance_id=self.instance_id)
            self._give_up()

    def _give_up(self) -> None:
        with self._changed:
            self._thread = None
            left, self._mail = self._mail, {}
        for output in left.values():
            output.done()
        self._on_loop(self._failed)

    def _show_while_needed(self) -> None:
        encoder: Encoder | None = None
        composed = False
        with self._changed:
            self._note_seen()
        started_s, next_s, key = time.monotonic(), 0.0, False
        while True:
            taken = self._take(next_s)
            if taken is None:
                return
            mail, asked, screen, looked_at = taken
            key = key or asked
            began_s = time.monotonic()
            latest_ns = self._copy(mail)
            now_s = time.monotonic()
            if latest_ns is None:
                waiting = not composed and now_s - started_s < FIRST_PICTURE_WAIT_S
                if waiting or not (key or not composed or self._composer.stale(now_s)):
                    continue
            frame = self._composer.compose(now_s)
            composed = True
            self._newest = frame
            drawn_s = time.monotonic()
            captured = [output.info.capture_ns for output in mail.values()]
            if screen is not None:
                self.screen_behind += not screen.put(frame, latest_ns or 0)
            if self._composer.streams > 1:
                next_s = now_s + GRID_INTERVAL_S
            if not looked_at:
                encoder = None
                self._on_loop(self._shown, len(captured), (drawn_s - began_s) * 1e3)
                continue
            if encoder is None or (frame.width, frame.height) != (encoder.format.width, encoder.format.height):
                encoder = Encoder(frame.width, frame.height, self._options)
                self.encoder_starts += 1
                self._format = encoder.format
            now_ns = time.monotonic_ns()
            # The camera's time makes motion even; one that is absent or far behind would stop the video's clock.
            timely = latest_ns is not None and now_ns - latest_ns < MAX_CAPTURE_AGE_NS
            shown_at_ns = latest_ns if latest_ns is not None and timely else now_ns
            encoded = encoder.encode(frame, shown_at_ns * 9 // 100_000, key)
            key = False
            shown_ns = time.monotonic_ns()
            latencies = [(shown_ns - capture_ns) / 1e6 for capture_ns in captured if capture_ns > 0]
            times = (drawn_s - began_s) * 1e3, (time.monotonic() - drawn_s) * 1e3
            self._on_loop(self._publish, encoded, len(captured), latencies, *times)

    def _take(self, not_before_s: float) -> tuple[dict[str, Output], bool, Screen | None, bool] | None:
        """What came since the last time, after at most TICK_S, whether a key frame is wanted, the screen, and whether
        viewers look; None when nobody sees it any more: the thread ends.
        """
        with self._changed:
            tick_s = time.monotonic() + TICK_S
            while self._needed:
                now_s = time.monotonic()
                if now_s >= tick_s or (self._mail and now_s >= not_before_s):
                    break
                if self._key_wanted and self._newest is not None and now_s >= not_before_s:
                    break  # a viewer beside the screen: it gets the last picture at once
                self._changed.wait((not_before_s if self._mail and now_s < not_before_s else tick_s) - now_s)
            mail, self._mail = self._mail, {}
            key, self._key_wanted = self._key_wanted, False
            screen, looked_at, needed = self._screen, self._looked_at, self._needed
            if not looked_at:
                self._format = None
            if not needed:
                self._thread = self._newest = None
        if needed:
            return mail, key, screen, looked_at
        for output in mail.values():
            output.done()
        return None

    def _copy(self, mail: dict[str, Output]) -> int | None:
        """The pictures into the composer, and back to their owners; the newest capture time, or None without any."""
        latest_ns: int | None = None
        for stream_id, output in tuple(mail.items()):
            try:
                picture = copy_picture(output.planes(), output.info.format)
                rects, labels = tuple(output.rects), tuple(output.labels)
                if not output.still_valid():
                    raise PictureGone("the picture's memory was used again before it was copied")
            except (FramelinkError, PictureTooSmall, PictureGone) as error:
                self.unusable += 1
                log.debug("picture cannot be shown", instance_id=self.instance_id, why=str(error))
                del mail[stream_id]
                continue
            finally:
                output.done()
            self._composer.update(stream_id, picture, rects, labels, time.monotonic())
            latest_ns = max(latest_ns or 0, output.info.capture_ns)
        return latest_ns

    def _note_seen(self) -> None:
        """What came while nobody looked: sizes and times, for the first frame's size. Under the lock, encoder
        stopped.
        """
        for stream_id, (width, height, seen_s) in self._seen.items():
            if width >= MIN_SIDE and height >= MIN_SIDE:
                self._composer.note(stream_id, width, height, seen_s)

    def _on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            log.debug("the event loop has ended", instance_id=self.instance_id)


def _quantiles(times_ms: deque[float]) -> dict[str, float | None]:
    kept = sorted(times_ms)
    if not kept:
        return {"p50": None, "p99": None}
    return {
        name: round(kept[min(len(kept) - 1, int(len(kept) * part))], 2) for name, part in (("p50", 0.5), ("p99", 0.99))
    }
