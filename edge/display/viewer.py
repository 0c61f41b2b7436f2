"""One viewer's place in a video: its queue of encoded frames. Must not know how it is connected. On the event loop only."""

from __future__ import annotations

import asyncio
from collections import deque

from .encoder import EncodedFrame

MAX_QUEUED_FRAMES = 60
"""Of one viewer: two seconds at 30 fps; who is further behind goes on at the next key frame."""


class Viewer:
    """A bounded queue."""

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: deque[EncodedFrame] = deque()
        self._needs_key = True
        self._started = False
        self._ended = False
        self._ready = asyncio.Event()

    async def next(self) -> EncodedFrame | None:
        """The next frame, the first one a key frame; None when the video has ended."""
        while not self._queue:
            if self._ended:
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()

    def offer(self, frame: EncodedFrame) -> None:
        """Never waits: who is behind loses what is queued, and goes on at the next key frame."""
        if len(self._queue) >= MAX_QUEUED_FRAMES:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._needs_key = True
        if self._needs_key and not frame.keyframe:
            self.dropped += self._started
            return
        self._needs_key, self._started = False, True
        self._queue.append(frame)
        self._ready.set()

    def end(self) -> None:
        self._ended = True
        self._ready.set()
