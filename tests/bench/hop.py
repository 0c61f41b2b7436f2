"""B2: from `publish` in one process to the frame in another's hands, 360p to 4K, beside ways to say the same.

Each party sends one item, waits for the answer that it was taken, and sends the next after a pause, as cameras do: both
ends have gone to sleep in between. Times are CLOCK_MONOTONIC of one machine, taken at the sender's call and at the
receiver's return. `raw`: 64 bytes over SOCK_SEQPACKET, the least that any of them can do: also the limit.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from framelink import Frame, FrameReader, FrameTimeout, FrameWriter, PixelFormat, slot_bytes_for
from tests.bench import machine, peers
from tests.bench.result import LIMIT, Line, Report, compared

ROUNDS = 9
ITEMS = 60
"""A round."""
PICKLED_ITEMS = 12
"""Of those that take tens of milliseconds each."""
PAUSE_S = 0.004
WAIT_S = 10.0
SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}

Measure = Callable[[], float]
"""One round of one party: its median, in microseconds."""


def b2(folder: Path) -> Report:
    """One line a picture size."""
    notes: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack, machine.on(machine.SERVER_CORE):
        parties: dict[str, Measure] = {
            LIMIT: stack.enter_context(_raw(spawn)),
            **{f"ours {size}": stack.enter_context(_ours(spawn, folder, size)) for size in SIZES},
            **{f"Queue {size}": stack.enter_context(_queue(spawn, size)) for size in ("360p", "1080p")},
        }
        try:
            parties["iceoryx2"] = stack.enter_context(_iceoryx2(folder))
        except peers.PeerAbsent as absent:
            notes.append(f"left out: {absent}")
        rounds: dict[str, list[float]] = {name: [] for name in parties}
        for turn in range(ROUNDS + 1):
            for name, measure in parties.items():
                value = measure()
                if turn:  # the first is warm-up
                    rounds[name].append(value)
    return Report([_line(size, rounds) for size in SIZES], notes)


def _line(size: str, rounds: Mapping[str, list[float]]) -> Line:
    chosen = {"ours": rounds[f"ours {size}"], LIMIT: rounds[LIMIT]}
    for name in ("iceoryx2", f"Queue {size}"):
        if name in rounds:
            chosen[name.replace(f" {size}", " (pickled)")] = rounds[name]
    if size != "360p":
        chosen["ours 360p"] = rounds["ours 360p"]
    reach = "≤ 1.5× raw" + ("; within 10 % of 360p" if size == "4K" else "")
    return compared("B2", f"hop between processes p50, {size}", "µs", chosen, reach=reach)


def _paced(send: Callable[[], None], taken: Callable[[], int], items: int = ITEMS) -> float:
    """`taken` waits for the answer and gives when the other end had it, in ns."""
    times = []
    for _ in range(items):
        time.sleep(PAUSE_S)  # the pace of the source
        started = time.monotonic_ns()
        send()
        times.append((taken() - started) / 1000)
    return statistics.median(times)


@contextmanager
def _child(spawn: Any, target: Callable[..., None], *arguments: Any) -> Iterator[socket.socket]:
    """A process on the other core, and a socket over which it says when it took an item."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.settimeout(WAIT_S)
    with machine.on(machine.CLIENT_CORE):
        process = spawn.Process(target=target, args=(far, *arguments), daemon=True)
        process.start()
    far.close()
    try:
        if near.recv(64) != b"ready":
            raise RuntimeError("the other process did not get ready")
        yield near
    finally:
        near.close()
        process.join(WAIT_S)
        if process.is_alive():
            process.kill()
            process.join()


def _answered(near: socket.socket) -> int:
    return int.from_bytes(near.recv(64), "little")


def _answer(far: socket.socket) -> None:
    far.send(time.monotonic_ns().to_bytes(8, "little"))


@contextmanager
def _raw(spawn: Any) -> Iterator[Measure]:
    with _child(spawn, _raw_child) as near:
        item = b"x" * 64
        yield lambda: _paced(lambda: near.sendall(item), lambda: _answered(near))


def _raw_child(far: socket.socket) -> None:
    far.send(b"ready")
    while far.recv(64):
        _answer(far)


@contextmanager
def _ours(spawn: Any, folder: Path, size: str) -> Iterator[Measure]:
    width, height = SIZES[size]
    path = folder / f"{size}.sock"
    with (
        FrameWriter(path, size, slots=4, slot_bytes=slot_bytes_for(width, height)) as writer,
        _child(spawn, _ours_child, str(path)) as near,
    ):

        def one_round() -> float:
            times = []
            for number in range(ITEMS):
                # Filled and in hand, as after decoding; the copy into the slot is not the hop.
                slot = writer.acquire()
                if slot is None:
                    raise RuntimeError("no free slot")
                slot.bgr(width, height)[0, 0] = number % 256
                time.sleep(PAUSE_S)
                started = time.monotonic_ns()
                writer.publish(
                    slot, capture_ns=0, pts_us=0, width=width, height=height, format=PixelFormat.BGR24, has_bgr=True
                )
                times.append((_answered(near) - started) / 1000)
            return statistics.median(times)

        yield one_round


def _ours_child(far: socket.socket, path: str) -> None:
    with FrameReader(path, "bench") as reader:
        reader.request(bgr=True)
        far.send(b"ready")
        far.setblocking(False)
        held: tuple[Frame, ...] = ()
        while not _ended(far):
            with contextlib.suppress(FrameTimeout):
                frame = reader.get(0.5, giving_back=held)
                frame.bgr()
                _answer(far)
                held = (frame,)


def _ended(far: socket.socket) -> bool:
    try:
        return not far.recv(1)
    except BlockingIOError:
        return False


@contextmanager
def _queue(spawn: Any, size: str) -> Iterator[Measure]:
    import numpy

    width, height = SIZES[size]
    queue = spawn.Queue(4)
    picture = numpy.zeros((height, width, 3), numpy.uint8)
    with _child(spawn, _queue_child, queue) as near:
        yield lambda: _paced(lambda: queue.put(picture), lambda: _answered(near), PICKLED_ITEMS)
        queue.put(None)


def _queue_child(far: socket.socket, queue: Any) -> None:
    far.send(b"ready")
    while queue.get() is not None:
        _answer(far)


@contextmanager
def _iceoryx2(folder: Path) -> Iterator[Measure]:
    """Its own publisher and listener in its own environment: one process of it measures against another."""
    python = peers.python_of("iceoryx2", peers.ICEORYX2)
    script = Path(__file__).with_name("iceoryx2_hop.py")
    process = subprocess.Popen(
        [str(python), str(script), str(machine.SERVER_CORE), str(machine.CLIENT_CORE), str(ITEMS), str(PAUSE_S)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "iceoryx2.err").open("wb"), text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def measure() -> float:
        stdin.write("round\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError((folder / "iceoryx2.err").read_text()[-500:])
        return float(line)

    try:
        if stdout.readline().strip() != "ready":
            said = (folder / "iceoryx2.err").read_text().strip().splitlines()
            raise peers.PeerAbsent(f"iceoryx2: {said[-1] if said else 'it did not start'}")
        yield measure
    finally:
        stdin.close()
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
