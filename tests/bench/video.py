"""B1, B3, B5: what it costs to have a camera's pictures in an application, and how old they are then.

Camera on one core; on the other, all that is measured: ours (the worker of `edge.ingest` and an application's process) and its
peers, one after the other, round by round. CPU time is the scheduler's, of all processes of a party, a picture of the camera.
"""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from belvedere.secret import Secret
from edge.ingest.settings import Settings
from edge.ingest.worker import WorkerConfig
from tests.bench import bench_camera, footage, machine, peers
from tests.bench.bench_camera import BenchCamera
from tests.bench.peers import REPOSITORY
from tests.bench.result import LIMIT, Line, Report, compared

ROUNDS = 5
FRAMES = 60
"""Two seconds of the camera, a round and party: a group of pictures."""
B1_ROUNDS_LAST_AT_MOST_S = 170.0
"""No further round that would end later."""
ROBOFLOW_ROUNDS = 2
ROBOFLOW_BEGINS_WITHIN_S = 180.0
"""Its imports take 15 s of CPU on its one core, and 100 s where its files have to be read from the disk."""
B1_LASTS_AT_MOST_S = 300.0
"""No further round of Roboflow's that would end later; one there is always."""
MEASURED = "CPU a picture, RTSP → 1080p "
ANSWER_WITHIN_S = 60.0
"""Of a party: to have begun, and for each measure."""
READERS = 4
DELAY_FRAMES = 150


class TakerFailed(Exception):
    """The other process did not answer; the message is its last word."""


@dataclass
class Taker:
    """One `tests.bench.takers` process."""

    process: subprocess.Popen[str]
    errors: Path

    def measure(self, frames: int) -> dict[str, Any]:
        """So many pictures, from now on."""
        assert self.process.stdin is not None
        print("measure", frames, file=self.process.stdin, flush=True)
        return dict(json.loads(self.line()))

    def line(self, within_s: float = ANSWER_WITHIN_S) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], within_s)[0]:
            raise TakerFailed(f"it says nothing within {within_s:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            said = self.errors.read_text().strip().splitlines()
            raise TakerFailed(said[-1] if said else "it ended")
        return line


@contextlib.contextmanager
def taker(kind: str, address: str, camera: BenchCamera, pids: Sequence[int] = ()) -> Iterator[Taker]:
    """A taker that has had its first pictures."""
    errors = camera.stamps.with_name(f"{kind}.err")
    command = [sys.executable, "-m", "tests.bench.takers", kind, address, str(camera.stamps), ",".join(map(str, pids))]
    if kind == "roboflow":
        python = peers.python_of("roboflow", peers.ROBOFLOW)
        command = [str(python), str(Path(__file__).with_name("roboflow_noop.py")), address, str(footage.FRAMES)]
    with machine.on(machine.SERVER_CORE), errors.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, cwd=REPOSITORY,
        )  # fmt: skip
    try:
        made = Taker(process, errors)
        made.line(ROBOFLOW_BEGINS_WITHIN_S if kind == "roboflow" else ANSWER_WITHIN_S)
        yield made
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def worker(camera: BenchCamera, folder: Path, settings: Settings | None = None) -> Iterator[tuple[int, str]]:
    """The ingest process of the camera: (pid, its socket)."""
    path = folder / "frames.sock"
    config = WorkerConfig("bench", camera.url, "", Secret(""), path, settings or Settings(idle_after_s=600.0))
    with machine.on(machine.SERVER_CORE), (folder / "worker.err").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.ingest.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, cwd=REPOSITORY,
        )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(config.to_line())
        process.stdin.flush()
        yield process.pid, str(path)
    finally:
        process.kill()
        process.wait()


def b1(folder: Path) -> Report:
    """CPU a picture, RTSP → readable 1080p."""
    parties = ["ours", "ours-5", "ours-yuv", "pyav", "bare"]
    notes = []
    if shutil.which("ffmpeg"):
        parties.append("pipe")
    else:
        notes.append("left out: the pipe way (no ffmpeg here: apt-get install ffmpeg)")
    spent: dict[str, list[float]] = {party: [] for party in parties}
    beside: dict[str, list[float]] = {"ours": [], "Roboflow InferencePipeline": []}
    began = time.monotonic()
    with bench_camera.running(folder) as camera:
        for number in range(ROUNDS):
            if number > 1 and (time.monotonic() - began) * (number + 1) / number > B1_ROUNDS_LAST_AT_MOST_S:
                notes.append(f"B1: {number} rounds instead of {ROUNDS}: the machine is busy, or slow")
                break
            for party in parties:
                spent[party].append(_cost(party, camera, folder))
        # By itself, since it takes it ten times as long to begin as all others.
        lasted_s = 0.0
        while len(beside["ours"]) < ROBOFLOW_ROUNDS and time.monotonic() - began + lasted_s < B1_LASTS_AT_MOST_S:
            round_began = time.monotonic()
            try:
                theirs = _cost("roboflow", camera, folder)
            except (peers.PeerAbsent, TakerFailed) as reason:
                notes.append(f"left out: roboflow: {reason}")
                break
            beside["Roboflow InferencePipeline"].append(theirs)
            beside["ours"].append(_cost("ours", camera, folder))
            lasted_s = time.monotonic() - round_began
    pyav = {"PyAV loop": spent["pyav"]}
    pipe = {"ffmpeg, pipe, shared memory": spent["pipe"]} if "pipe" in spent else {}

    def line(what: str, party: str, others: Mapping[str, Sequence[float]], reach: str) -> Line:
        return compared("B1", MEASURED + what, "ms", {"ours": spent[party], **others}, reach=reach)

    lines = [
        line("BGR, every frame taken", "ours", pyav | pipe, "≤ 1.05× PyAV, ≤ 0.60× pipe"),
        line("BGR, 5 of 30 taken", "ours-5", pyav | pipe, "≤ 0.80× PyAV"),
        line("YUV, every frame taken", "ours-yuv", {LIMIT: spent["bare"]}, "≤ 1.10× bare decoding"),
    ]
    if beside["ours"]:
        lines.append(compared("B1", MEASURED + "BGR, every frame taken, beside Roboflow", "ms", beside))
    return Report(lines, notes)


def _cost(party: str, camera: BenchCamera, folder: Path) -> float:
    """ms of CPU a picture of the camera."""
    with contextlib.ExitStack() as stack:
        address, pids = camera.url, []
        if party.startswith("ours"):
            pid, address = stack.enter_context(worker(camera, folder))
            pids.append(pid)
        answer = stack.enter_context(taker(party, address, camera, pids)).measure(
            FRAMES // (6 if party == "ours-5" else 1)
        )
    return float(answer["cpu_ms"]) / int(answer["camera_frames"])


def b3(folder: Path) -> Report:
    """Four applications on one camera."""
    rounds: dict[str, list[float]] = {"ours": [], "1 application": [], "4 pipelines (PyAV)": [], "1 pipeline": []}
    with bench_camera.running(folder) as camera:
        for _ in range(ROUNDS):
            rounds["1 application"].append(_ingest_cost(camera, folder, 1))
            rounds["ours"].append(_ingest_cost(camera, folder, READERS))
            one = _cost("pyav", camera, folder)
            rounds["1 pipeline"].append(one)
            with contextlib.ExitStack() as stack:
                takers = [stack.enter_context(taker("pyav", camera.url, camera)) for _ in range(READERS)]
                rounds["4 pipelines (PyAV)"].append(_together(takers))
    measure = f"CPU of the ingest process a picture, {READERS} applications take every frame"
    return Report([compared("B3", measure, "ms", rounds, reach="≤ 1.10× 1 application")])


def _together(takers: Sequence[Taker]) -> float:
    for one in takers:
        assert one.process.stdin is not None
        print("measure", FRAMES, file=one.process.stdin, flush=True)
    answers = [json.loads(one.line()) for one in takers]
    return float(sum(answer["cpu_ms"] for answer in answers) / answers[0]["camera_frames"])


def _ingest_cost(camera: BenchCamera, folder: Path, readers: int) -> float:
    from tests.bench.takers import cpu_ns

    with contextlib.ExitStack() as stack:
        pid, address = stack.enter_context(worker(camera, folder))
        takers = [stack.enter_context(taker("ours", address, camera)) for _ in range(readers)]
        before = cpu_ns([pid])
        for one in takers:
            assert one.process.stdin is not None
            print("measure", FRAMES, file=one.process.stdin, flush=True)
        frames = max(int(json.loads(one.line())["camera_frames"]) for one in takers)
        return (cpu_ns([pid]) - before) / 1e6 / frames


def b5(folder: Path) -> Report:
    """From the camera's sending of a picture to its pixels in the application's hands."""
    parties = ["ours", "opencv", *(["pipe"] if shutil.which("ffmpeg") else [])]
    notes = [] if "pipe" in parties else ["left out: ffmpeg (not here: apt-get install ffmpeg)"]
    middle: dict[str, list[float]] = {party: [] for party in parties}
    late: dict[str, list[float]] = {party: [] for party in parties}
    decode: list[float] = []
    with bench_camera.running(folder) as camera:
        for _ in range(3):
            for party in list(parties):
                try:
                    delays = _delays(party, camera, folder)
                except TakerFailed as failed:
                    notes.append(f"left out: {party}: {failed}")
                    parties.remove(party)
                    del middle[party], late[party]
                    continue
                middle[party].append(statistics.median(delays))
                late[party].append(statistics.quantiles(delays, n=100)[98])
            decode.append(_decode_ms())
    allowed = statistics.median(decode) + 1
    names = {"opencv": "OpenCV VideoCapture", "pipe": "ffmpeg nobuffer, pipe"}

    def line(what: str, rounds: Mapping[str, list[float]], reach: str) -> Line:
        named = {names.get(party, party): values for party, values in rounds.items()}
        measure = f"camera's sending → get() returns, 1080p BGR, {what}"
        return compared("B5", measure, "ms", {**named, LIMIT: decode}, reach=reach)

    lines = [
        line("p50", middle, f"≤ one decode + 1 ms = {allowed:.1f}"),
        line("p99", late, f"≤ one decode + 1 ms + a frame interval = {allowed + 1000 / footage.FPS:.1f}"),
    ]
    return Report(
        lines, [*notes, "B5's limit is one decoding of a picture and its BGR, by wall clock, in the same rounds"]
    )


def _delays(party: str, camera: BenchCamera, folder: Path) -> list[float]:
    with contextlib.ExitStack() as stack:
        address, pids = camera.url, []
        if party == "ours":
            pid, address = stack.enter_context(worker(camera, folder))
            pids.append(pid)
        return list(stack.enter_context(taker(party, address, camera, pids)).measure(DELAY_FRAMES)["delays_ms"])


def _decode_ms() -> float:
    """One picture decoded and converted, p50 by wall clock, paced as the camera does: caches go cold in between."""
    import av

    times = []
    with machine.on(machine.SERVER_CORE), av.open(str(footage.clip())) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for packet in container.demux(stream):
            began = time.monotonic_ns()
            for frame in packet.decode():
                frame.to_ndarray(format="bgr24")
            times.append((time.monotonic_ns() - began) / 1e6)
            time.sleep(1 / footage.FPS - times[-1] / 1e3 if times[-1] < 30 else 0)
            if len(times) == FRAMES:
                break
    return statistics.median(times)
