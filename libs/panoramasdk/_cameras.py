"""Frames of several cameras, as batches: one media per camera, at least one of them new.

`get` itself listens to the cameras, so that a frame arrives without a hop between threads. Cameras that are not there
(yet, or any more) are connected in the background by `tend`, which the runtime calls a few times a second; the others
deliver meanwhile.

Must not know: outputs, models, or the control socket.
"""

from __future__ import annotations

import collections
import os
import select
import threading
import time
import weakref
from typing import Callable, Collection, ContextManager, Sequence

from framelink import Frame, FramelinkError, FrameReader, RingGone
from panoramasdk._errors import NodeError, TimeoutException
from panoramasdk._looks import Looks
from panoramasdk._media import media
from panoramasdk._picture import Picture
from panoramasdk._spec import Stream

POLL_S = 1.0
"""The longest one wait lasts before the world is looked at again; frames and new cameras end it at once."""
CACHED_MAX_AGE_S = 10.0
"""A camera's previous frame stands in for a new one until it is this old: a camera that is paused, stalled or gone
delivers nothing after that."""
GATHER_S = 0.02
"""How long a batch waits for cameras that have a new frame already, once it has one; the answer takes less than 1 ms, plus the
making of BGR."""


class _Feed:
    """One camera of a port."""

    def __init__(self, stream: Stream, path: str) -> None:
        self.stream = stream
        self.path = path
        self.reader: FrameReader | None = None
        self.latest: Picture | None = None
        self.fresh = False
        """`latest` has not been delivered yet."""
        self.paused = False
        """By its owner, for this application: it delivers nothing, not even its previous frame."""
        self.returning: list[Frame] = []
        """To be given back with the next request, in one message."""
        self.looks = Looks()


class Cameras:
    """The cameras of one media input.

    `delivered(pictures)` is told of each batch's new frames, before the application has them; `using()` is held as long as the
    application waits here.
    """

    def __init__(
        self,
        port: str,
        reader_name: str,
        feeds: Sequence[tuple[Stream, str]],
        delivered: Callable[[list[Picture]], None],
        using: Callable[[], ContextManager[None]],
    ) -> None:
        self._port = port
        self._reader_name = reader_name
        self._feeds = [_Feed(stream, path) for stream, path in feeds]
        self._delivered = delivered
        self._using = using
        self._turn = threading.Lock()
        """Whoever has it may use the readers and the pictures: one `get`, or `tend`."""
        self._arrived: collections.deque[tuple[_Feed, FrameReader]] = collections.deque()
        self._older: list[weakref.ref[Picture]] = []
        """Pictures of batches before the last one."""
        self._last: list[weakref.ref[Picture]] = []
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # --- The application's thread ------------------------------------------------------------------------------------

    def get(self, timeout_s: float | None) -> list[media]:
        """One media per camera that has ever delivered (see CACHED_MAX_AGE_S); waits until one of them is new."""
        if not self._feeds:
            raise NodeError("the input %r has no camera: connect one in the application's graph" % self._port)
        deadline = None if timeout_s is None else time.monotonic() + max(0.0, timeout_s)
        with self._using(), self._turn:
            self._settle_older()
            self._forget_overtaken()
            return self._wait(timeout_s, deadline)

    def _wait(self, timeout_s: float | None, deadline: float | None) -> list[media]:
        gathered_by = None
        while True:
            self._welcome()
            for feed in self._feeds:
                self._ask(feed)
                self._take(feed)
            now = time.monotonic()
            if any(feed.fresh for feed in self._feeds):
                gathered_by = until = gathered_by or now + GATHER_S
                if now >= gathered_by or not any(self._is_due(feed) for feed in self._feeds):
                    return self._batch()
            elif timeout_s is not None and deadline is not None and now >= deadline:
                raise TimeoutException("no new frame at input %r within %.3f s" % (self._port, timeout_s))
            else:
                until = now + POLL_S if deadline is None else min(deadline, now + POLL_S)
            self._poll(until)

    def _forget_overtaken(self) -> None:
        """A frame that came while the application was busy is not news when there is a newer one: ask for that."""
        self._welcome()
        for feed in self._feeds:
            self._take(feed)
            if feed.fresh and _has_newer(feed):
                feed.fresh = False

    @staticmethod
    def _is_due(feed: _Feed) -> bool:
        """It has a frame for us that is only on its way."""
        return not (feed.fresh or feed.paused) and _has_newer(feed)

    def _poll(self, until: float) -> None:
        """Sleep until a camera has something to say, or one has come."""
        poller = select.poll()
        poller.register(self._wake_out, select.POLLIN)
        for feed in self._feeds:
            if feed.reader is not None and not feed.fresh:
                try:
                    poller.register(feed.reader.fileno(), select.POLLIN)
                except RingGone:
                    self._lose(feed)
        poller.poll(max(0, int((until - time.monotonic()) * 1000 + 0.999)))
        self._drain_wake()

    def _ask(self, feed: _Feed) -> None:
        """Request a frame of this camera, if there is not a new one already; what is to be given back is so either way."""
        returning, feed.returning = feed.returning, []
        if feed.reader is not None and not feed.fresh and not feed.paused:
            # An older writer makes no BGR on demand.
            bgr = feed.looks.wants_in_advance() or not feed.reader.makes_bgr
            try:
                feed.reader.request(bgr=bgr, giving_back=returning)
            except (RingGone, OSError):
                self._lose(feed)
        else:
            for frame in returning:
                frame.release()

    def _take(self, feed: _Feed) -> None:
        """What this camera has for us, without waiting."""
        if feed.paused:
            feed.latest, feed.fresh = None, False
        if feed.reader is None or feed.fresh:
            return
        try:
            frame = feed.reader.take()
        except RingGone:
            self._lose(feed)
            return
        if frame is not None and feed.paused:
            frame.release()  # it was asked for before the pause
        elif frame is not None:
            feed.latest = Picture(feed.stream, frame, feed.looks.looked)
            feed.fresh = True
        self._yield_pressed(feed)

    def _batch(self) -> list[media]:
        oldest = time.monotonic_ns() - int(CACHED_MAX_AGE_S * 1e9)
        batch, new = [], []
        for feed in self._feeds:
            picture = feed.latest
            if picture is None or (not feed.fresh and picture.info.publish_ns < oldest):
                feed.latest = None
                continue
            batch.append(media(picture, not feed.fresh))
            if feed.fresh:
                feed.looks.delivered()
                new.append(picture)
                self._last.append(weakref.ref(picture))
            feed.fresh = False
        self._delivered(new)
        return batch

    # --- Slots -------------------------------------------------------------------------------------------------------

    def _settle_older(self) -> None:
        """Give slots back, with the requests that follow: of every batch but the last. A camera's latest stays, it may be wanted
        again.
        """
        latest = {id(feed.latest) for feed in self._feeds}
        returning = {id(feed.stream): feed.returning for feed in self._feeds}
        keep = []
        for known in self._older + self._last:
            picture = known()
            if picture is None:
                continue
            if id(picture) in latest or not picture.settle(returning[id(picture.stream)].append):
                keep.append(known)
        self._older, self._last = keep, []

    def _yield_pressed(self, feed: _Feed) -> None:
        """The camera wants slots back, because another of its readers goes without frames."""
        pressed = feed.reader.pressed if feed.reader is not None else frozenset()
        if not pressed:
            return
        for known in self._older + self._last:
            picture = known()
            if picture is not None and picture.stream is feed.stream:
                for sequence in pressed:
                    if picture.matches(sequence):
                        picture.settle()

    # --- The background ----------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Connect cameras that are not there; take in what they say while the application is busy. Not for its
        thread.
        """
        if self._turn.acquire(blocking=False):
            try:
                self._welcome()
                for feed in self._feeds:
                    self._take(feed)
            finally:
                self._turn.release()
        for feed in self._feeds:
            if feed.reader is None and not any(feed is arrived for arrived, _ in list(self._arrived)):
                self._connect(feed)

    def pause(self, camera_ids: Collection[str]) -> None:
        """From now on these deliver nothing, and the others do. From any thread."""
        for feed in self._feeds:
            feed.paused = feed.stream.camera_id in camera_ids
        self._wake()

    def has_news(self) -> bool:
        """A frame is there that the application has not got, and it does not wait for one."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            return any(not feed.paused and (feed.fresh or _has_newer(feed)) for feed in self._feeds)
        finally:
            self._turn.release()

    def _connect(self, feed: _Feed) -> None:
        try:
            reader = FrameReader(feed.path, self._reader_name, connect_timeout_s=0)
        except (FramelinkError, OSError):
            return  # Not there yet; the next tending tries again.
        self._arrived.append((feed, reader))
        self._wake()

    def _welcome(self) -> None:
        while self._arrived:
            feed, reader = self._arrived.popleft()
            feed.reader = reader

    def _lose(self, feed: _Feed) -> None:
        if feed.reader is not None:
            feed.reader.close()
            feed.reader = None

    def _wake(self) -> None:
        try:
            os.write(self._wake_in, b"w")
        except BlockingIOError:
            return  # Full of wake-ups: whoever waits is woken.

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_out, 4096)
        except BlockingIOError:
            return  # It was a camera that ended the wait.


def _has_newer(feed: _Feed) -> bool:
    return feed.reader is not None and feed.reader.newest() > feed.reader.last_sequence
