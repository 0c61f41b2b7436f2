"""The processes of B12: `cameras CLIP COUNT` serves the clip as so many cameras; `application SECONDS` is an application that
asks the person detector about each of its cameras five times a second.

Each prints a JSON line when it is ready, when it begins to count, and when it is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from belvedere.rtsp import FileSource, RtspServer

PER_SECOND = 5
MODEL = "person_detector"
GET_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 10.0
FRAME_S = 1 / 15
"""From one picture of a camera to the next."""
CATCH_UP_S = 0.5
"""So old may a picture be for the peer, which keeps what it could not ask about in time."""


async def cameras(clip: Path, count: int) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with RtspServer("127.0.0.1", 0) as server:
        for number in range(count):
            server.add(f"camera-{number}", FileSource(clip))
        print(json.dumps({"port": server.port}), flush=True)
        await stop.wait()


def application(warm_s: float, seconds: float) -> None:
    """Answers of the model by camera, in so many seconds after so many to warm up. Its threads ask, as many as there are cores.

    Each camera has its own times, a fifth of a second apart; one whose picture came late is asked about late, and one that is
    behind catches up, by CATCH_UP_S at most.
    """
    import panoramasdk

    node = panoramasdk.node()
    tally = _Tally()
    due: dict[str, float] = {}

    def ask(picture: Any) -> None:
        try:
            node.call(picture, MODEL, CALL_TIMEOUT_S)
        except (TimeoutError, RuntimeError):
            tally.failed(picture)
        else:
            tally.answered(picture)

    began = now = time.monotonic()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        while now - began < warm_s + seconds:
            if not tally.counts and now - began > warm_s:
                tally.counts = True
                print(json.dumps({"counting": True}), flush=True)
            for picture in node.inputs.video_in.get(GET_TIMEOUT_S):
                camera = picture.stream_id
                if picture.is_cached or due.setdefault(camera, now) > now or not tally.asked(picture):
                    continue
                due[camera] = max(due[camera] + 1 / PER_SECOND, now - CATCH_UP_S)
                threads.submit(ask, picture)
            # When the next camera is due; not before those that are behind can have another picture.
            time.sleep(max(0.0, max(min(due.values(), default=0.0), now + FRAME_S) - time.monotonic()))
            now = time.monotonic()
        said = tally.said()
    print(json.dumps(said), flush=True)


class _Tally:
    """What became of each question."""

    def __init__(self) -> None:
        self.counts = False
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._answers: dict[str, int] = {}
        self._errors = 0
        self._ages_s: list[float] = []

    def asked(self, picture: Any) -> bool:
        """False: its camera's last question is open still."""
        with self._lock:
            if picture.stream_id in self._open:
                return False
            self._open.add(picture.stream_id)
            return True

    def failed(self, picture: Any) -> None:
        with self._lock:
            self._open.discard(picture.stream_id)
            self._errors += self.counts

    def answered(self, picture: Any) -> None:
        seconds, micro = picture.time_stamp
        with self._lock:
            self._open.discard(picture.stream_id)
            if self.counts:
                self._answers[picture.stream_id] = self._answers.get(picture.stream_id, 0) + 1
                self._ages_s.append(time.time() - seconds - micro / 1e6)

    def said(self) -> dict[str, Any]:
        with self._lock:
            ages = sorted(self._ages_s)
            p99 = ages[int(len(ages) * 0.99)] if ages else None
            return {"answers": dict(self._answers), "errors": self._errors, "p99_s": p99}


if __name__ == "__main__":
    if sys.argv[1] == "cameras":
        asyncio.run(cameras(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        application(float(sys.argv[2]), float(sys.argv[3]))
