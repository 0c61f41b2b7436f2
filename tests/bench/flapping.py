"""B6 and B11: cameras that come and go.

B6: the camera is switched off for some seconds and on again, in the midst of a group of pictures; until the application has a
picture that was taken after that. B11: eight cameras that end every stream after a few pictures, tens of thousands of
times in all; what grows meanwhile in the eight processes that read them, after their heaps have found their size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from belvedere.rtsp import AccessUnit, FileSource, RtspServer, Source, StreamDescription
from belvedere.secret import Secret
from edge.ingest.settings import Settings
from edge.ingest.worker import WorkerConfig
from framelink import FrameReader
from tests.bench import bench_camera, footage, machine
from tests.bench.peers import REPOSITORY
from tests.bench.result import Line, Report, compared
from tests.bench.video import worker
from tests.support.clips import make_clip

B6_ROUNDS = 6
AWAY_S = 4.0
"""Long enough for the waits between the tries to have grown to their bound."""

CAMERAS = 8
RECONNECTS = 50_000
"""Or as many as LASTS_AT_MOST_S allows."""
WARM_UP = 20_000
"""The processes' heaps take 10,000 to 15,000 until they have found their size. A leak goes on after that. Where there is no time
for so many, half of what was made."""
MEASURED = 10_000
"""What is counted after that, at least."""
PICTURES = 5
"""A connection's."""
LASTS_AT_MOST_S = 270.0
SAMPLE_S = 0.25
MEMORY_EVERY = 4
"""Samples."""
RECONNECTS_AN_HOUR = CAMERAS * 3600 / Settings().retry_max_s
"""As often as eight cameras can flap under the usual settings."""


def b6(folder: Path) -> Report:
    """Camera back → first frame in the application."""
    times = []
    with (
        bench_camera.running(folder, watched=True) as camera,
        worker(camera, folder) as (_, address),
        FrameReader(address, "bench", connect_timeout_s=20) as reader,
    ):
        for number in range(B6_ROUNDS):
            reader.get(20.0).release()
            camera.stop()
            time.sleep(AWAY_S + number * 0.37)  # not in step with the group of pictures
            camera.start()
            back_ns = time.monotonic_ns()
            while True:
                with reader.get(20.0) as frame:
                    if frame.info.capture_ns > back_ns:
                        break
            times.append((time.monotonic_ns() - back_ns) / 1e9)
    reach = f"≤ one GOP + 1 s = {footage.GOP_S + 1:.0f} s; the slowest of {B6_ROUNDS}: {max(times):.2f} s"
    return Report([compared("B6", "camera back → first frame in the application", "s", {"ours": times}, reach=reach)])


@dataclass
class _Worker:
    """A process that reads a camera, and what it last said of itself."""

    process: subprocess.Popen[bytes]
    socket: str
    row: dict[str, Any] = field(default_factory=dict)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.row = json.loads(line)


@dataclass(frozen=True)
class _Sample:
    reconnects: int
    memory_mb: tuple[float, ...] | None
    """By process; not in every sample, since it takes the kernel long to add up."""
    descriptors: tuple[int, ...]
    threads: tuple[int, ...]


def b11(folder: Path) -> Report:
    """What tens of thousands of reconnects leave behind, once the heap has settled."""
    clip = make_clip(folder / "clip.mp4", "h264", 640, 360, 25, PICTURES / 25)
    samples: list[_Sample] = []
    began = time.monotonic()
    with _flapping_cameras(clip) as urls, _workers(folder, urls) as workers, contextlib.ExitStack() as stack:
        for one in workers:
            stack.enter_context(FrameReader(one.socket, "bench", connect_timeout_s=30)).request(bgr=True)
        while not samples or samples[-1].reconnects < RECONNECTS:
            if time.monotonic() - began > LASTS_AT_MOST_S:
                break
            time.sleep(SAMPLE_S)  # the interval of the samples
            samples.append(_sample(workers, with_memory=len(samples) % MEMORY_EVERY == 0))
    took_s = time.monotonic() - began
    done = samples[-1].reconnects
    warm = [one for one in samples if one.reconnects >= min(WARM_UP, done // 2)]
    counts = [one.reconnects for one in warm if one.memory_mb is not None]
    sizes = [one.memory_mb for one in warm if one.memory_mb is not None]
    growth, error = _growth(counts, sizes)
    hour = f"at {RECONNECTS_AN_HOUR:,.0f} reconnects an hour, the most that the usual settings allow"
    lines = [
        Line("B11", f"memory growth of {CAMERAS} flapping cameras' processes, {hour}", "MB/h",
             growth * RECONNECTS_AN_HOUR, reach=f"< 1 MB/h (standard error {error * RECONNECTS_AN_HOUR:.2f})"),
        Line("B11", "the same over 10,000 reconnects", "MB", growth * 10_000),
        Line("B11", "descriptors more at the end than after warming up", "",
             _more([one.descriptors for one in warm]), reach="0"),
        Line("B11", "threads more", "", _more([one.threads for one in warm]), reach="0"),
    ]  # fmt: skip
    first = next(sum(one.memory_mb) for one in samples if one.memory_mb is not None)
    note = (
        f"B11: {done:,} reconnects in {took_s:.0f} s, {done / took_s:.0f} a second; counted from {counts[0]:,}; "
        f"{first:.1f} MB in all at the beginning, {sum(sizes[0]):.1f} then, {sum(sizes[-1]):.1f} at the end"
    )
    short = [f"B11: fewer than {MEASURED:,} reconnects were counted"] if done - counts[0] < MEASURED else []
    return Report(lines, [note, *short])


def _growth(counts: Sequence[int], sizes: Sequence[Sequence[float]]) -> tuple[float, float]:
    """(MB that all processes grow by with each reconnect of any, its standard error). The error is taken from how much the
    processes differ: the sizes of one of them, one after the other, are no independent values.
    """
    slopes = [statistics.linear_regression(counts, one).slope for one in zip(*sizes, strict=True)]
    return sum(slopes), math.sqrt(len(slopes)) * statistics.stdev(slopes)


def _more(samples: list[tuple[int, ...]]) -> float:
    """What the processes have more of in the last third than in the first, each at its least: the connection of the moment, and
    what opens and closes it, come and go.
    """
    third = max(1, len(samples) // 3)
    first, last = (zip(*part, strict=True) for part in (samples[:third], samples[-third:]))
    return float(sum(min(after) - min(before) for before, after in zip(first, last, strict=True)))


def _sample(workers: list[_Worker], *, with_memory: bool) -> _Sample:
    processes = [psutil.Process(one.process.pid) for one in workers]
    memory = tuple(_own_mb(process.pid) for process in processes) if with_memory else None
    descriptors = tuple(process.num_fds() for process in processes)
    threads = tuple(process.num_threads() for process in processes)
    return _Sample(sum(int(one.row.get("reconnects", 0)) for one in workers), memory, descriptors, threads)


def _own_mb(pid: int) -> float:
    """A process's own memory. Without the ring: that is taken as a whole when it is made, and which of its slots have been used so
    far is no growth.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("the kernel does not say how much memory is a process's own")


@contextlib.contextmanager
def _workers(folder: Path, urls: list[str]) -> Iterator[list[_Worker]]:
    settings = Settings(retry_max_s=0.01, idle_after_s=3600.0, slots=4)
    workers = []
    try:
        for number, url in enumerate(urls):
            path = folder / str(number) / "frames.sock"
            config = WorkerConfig(f"camera-{number}", url, "user", Secret("p4ss"), path, settings)
            process = subprocess.Popen(
                [sys.executable, "-m", "edge.ingest.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=REPOSITORY,
            )  # fmt: skip
            workers.append(_Worker(process, str(path)))
            assert process.stdin is not None
            process.stdin.write(config.to_line())
            process.stdin.flush()
            threading.Thread(target=workers[-1].listen, daemon=True).start()
        yield workers
    finally:
        for one in workers:
            one.process.kill()
            one.process.wait()


@contextlib.contextmanager
def _flapping_cameras(clip: Path) -> Iterator[list[str]]:
    spawn = multiprocessing.get_context("spawn")
    near, far = spawn.Pipe()
    with machine.on(machine.CLIENT_CORE):
        process = spawn.Process(target=_serve, args=(far, str(clip)), daemon=True)
        process.start()
    try:
        yield list(near.recv())
    finally:
        process.kill()
        process.join()


class _Few(Source):
    """A few pictures, then the end; out of memory, so that it is not the camera that is measured."""

    def __init__(self, description: StreamDescription, units: Sequence[AccessUnit]) -> None:
        self._description = description
        self._units = units

    async def describe(self) -> StreamDescription:
        return self._description

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        for unit in self._units:
            yield unit


def _serve(far: Any, clip: str) -> None:
    async def serve() -> None:
        file = FileSource(clip, loop=False, realtime=False)
        description, units = await file.describe(), [unit async for unit in file.subscribe()]
        async with RtspServer("127.0.0.1", 0, users={"user": Secret("p4ss")}) as server:
            for number in range(CAMERAS):
                server.add(f"camera{number}", _Few(description, units))
            far.send([server.url(f"camera{number}") for number in range(CAMERAS)])
            await asyncio.Event().wait()

    asyncio.run(serve())
