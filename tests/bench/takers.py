"""Who takes frames of a camera, each in a process of its own: ours and its peers.

    python -m tests.bench.takers KIND ADDRESS STAMPS PIDS      # "ready"; for each "measure N" a JSON line

KIND: ours, ours-5 (five a second), ours-yuv, pyav, bare (decoding alone), pipe (an ffmpeg child, its pipe into shared memory),
opencv. ADDRESS: the camera's, for ours the socket of its frames. PIDS: processes that work for it, whose CPU time counts.
The answer: {"frames": taken, "camera_frames": of the camera between the first and the last of them, by their numbers, "cpu_ms": of all, "delays_ms": [...]}, where a delay is
from the camera's sending of a picture to the moment when its pixels could be read.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench import footage

Taken = Iterator[tuple[int, int]]
"""(CLOCK_MONOTONIC in ns when it could be read, the picture's number), for ever."""
WARM_UP = 20
FIVE_A_SECOND_S = 0.2


def ours(address: str, *, bgr: bool = True, pause_s: float = 0.0) -> Taken:
    """Frames of `edge.ingest`."""
    from framelink import Frame, FrameReader

    with FrameReader(address, "bench", connect_timeout_s=20) as reader:
        due = time.monotonic()
        frame: Frame | None = None
        while True:
            frame = reader.get(20.0, bgr=bgr, giving_back=(frame,) if frame else ())
            picture = frame.bgr() if bgr else frame.planes()[0]
            yield time.monotonic_ns(), footage.number_of(picture)
            if pause_s:
                frame.release()
                due = max(due + pause_s, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))


def pyav(url: str, *, bgr: bool = True) -> Taken:
    """The plain loop, in one process."""
    import av
    import numpy as np

    with av.open(url, options={"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}) as container:
        for frame in container.decode(video=0):
            if bgr:
                picture = frame.to_ndarray(format="bgr24")
                yield time.monotonic_ns(), footage.number_of(picture)
            else:
                luma = frame.planes[0]
                rows = np.frombuffer(memoryview(luma), np.uint8).reshape(-1, luma.line_size)
                yield time.monotonic_ns(), footage.number_of(rows)


def pipe(url: str) -> Taken:
    """The usual way of network video recorders: ffmpeg writes raw pictures into a pipe, they are read into shared memory."""
    from multiprocessing.shared_memory import SharedMemory

    import numpy as np

    size = footage.WIDTH * footage.HEIGHT * 3
    memory = SharedMemory(create=True, size=size)
    assert memory.buf is not None
    command = (
        "ffmpeg -nostdin -loglevel error -fflags nobuffer -flags low_delay -probesize 32 -analyzeduration 0 "
        "-rtsp_transport tcp -i"
    )
    process = subprocess.Popen(
        [*command.split(), url, "-f", "rawvideo", "-pix_fmt", "bgr24", "-fps_mode", "passthrough", "-"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # 1 MiB is what an ordinary user may have
            import fcntl

            fcntl.fcntl(process.stdout, 1031, 1 << 20)
        picture = np.frombuffer(memory.buf, np.uint8, size).reshape(footage.HEIGHT, footage.WIDTH, 3)
        raw: Any = process.stdout.raw if hasattr(process.stdout, "raw") else process.stdout
        view = memory.buf[:size]
        while True:
            at = 0
            while at < size:
                at += raw.readinto(view[at:]) or 0
            yield time.monotonic_ns(), footage.number_of(picture)
    finally:
        process.kill()
        process.wait()
        memory.unlink()


def opencv(url: str) -> Taken:
    """cv2.VideoCapture over its FFmpeg."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"
    import cv2

    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    while True:
        good, picture = capture.read()
        if not good:
            raise SystemExit("OpenCV reads nothing")
        yield time.monotonic_ns(), footage.number_of(picture)


KINDS: dict[str, Callable[[str], Taken]] = {
    "ours": ours,
    "ours-5": lambda address: ours(address, pause_s=FIVE_A_SECOND_S),
    "ours-yuv": lambda address: ours(address, bgr=False),
    "pyav": pyav,
    "bare": lambda url: pyav(url, bgr=False),
    "pipe": pipe,
    "opencv": opencv,
}


def cpu_ns(pids: list[int]) -> int:
    """Of all their threads, as the scheduler counts it: to the nanosecond, where /proc/…/stat has hundredths."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread may end meanwhile
                total += int((task / "schedstat").read_text().split()[0])
    return total


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def main() -> None:
    kind, address, stamps_path, pids = sys.argv[1:5]
    with Path(stamps_path).open("rb") as file:
        stamps = mmap.mmap(file.fileno(), 8 * footage.FRAMES, prot=mmap.PROT_READ)
    taken = KINDS[kind](address)
    helpers = [int(pid) for pid in pids.split(",") if pid]
    for _ in range(5 if kind == "ours-5" else WARM_UP):
        next(taken)
    helpers += [os.getpid(), *children()]
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line.split()[1])
        delays = []
        _, last = next(taken)
        before, passed = cpu_ns(helpers), 0
        for _ in range(count):
            now_ns, number = next(taken)
            passed += (number - last) % footage.FRAMES
            last = number
            sent = struct.unpack_from("@q", stamps, 8 * number)[0]
            delays.append((now_ns - sent) / 1e6)
        spent = cpu_ns(helpers) - before
        answer = {"frames": count, "camera_frames": passed, "cpu_ms": spent / 1e6, "delays_ms": delays}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
