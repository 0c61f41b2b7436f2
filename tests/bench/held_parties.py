"""The processes of B12: `cameras CLIP COUNT` serves the clip as so many cameras; `application SECONDS` is an application that
asks the person detector about each of its cameras five times a second.

Each prints a JSON line when it is ready, when it begins to count, and when it is done.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from belvedere.rtsp import FileSource, RtspServer

PER_SECOND = 5
MODEL = "person_detector"
GET_TIMEOUT_S = 5.0


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
    """Answers of the model by camera, in so many seconds after so many to warm up."""
    import panoramasdk

    node = panoramasdk.node()
    began = time.monotonic()
    turn, answers, errors, counts = 0, {}, 0, False
    latencies: list[float] = []
    while time.monotonic() - began < warm_s + seconds:
        # The next fifth of a second; those that a slow turn has used up are lost.
        turn = max(turn + 1, int((time.monotonic() - began) * PER_SECOND))
        time.sleep(max(0.0, began + turn / PER_SECOND - time.monotonic()))
        if not counts and time.monotonic() - began > warm_s:
            counts = True
            print(json.dumps({"counting": True}), flush=True)
        for picture in node.inputs.video_in.get(GET_TIMEOUT_S):
            if picture.is_cached:
                continue
            try:
                node.call(picture, MODEL, 10)
            except (TimeoutError, RuntimeError):
                errors += counts
                continue
            if counts:
                answers[picture.stream_id] = answers.get(picture.stream_id, 0) + 1
                seconds_ago, micro = picture.time_stamp
                latencies.append(time.time() - seconds_ago - micro / 1e6)
    latencies.sort()
    p99 = latencies[int(len(latencies) * 0.99)] if latencies else None
    print(json.dumps({"answers": answers, "errors": errors, "p99_s": p99}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "cameras":
        asyncio.run(cameras(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        application(float(sys.argv[2]), float(sys.argv[3]))
