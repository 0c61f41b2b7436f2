"""B12: how many cameras of 720p, 15 pictures a second, these cores hold with the person detector five times a second each.

Ours: the real workers of ingest and inference, and one application on panoramasdk that calls the model with each camera's
picture. The peer: Roboflow's InferencePipeline with the same detector in its process. The cameras are served on the same
cores, to both. A number of cameras is held when each has 95 % of its answers within the time, none was an error, and,
of ours, no picture was dropped by ingest. The number is found by halving, each try on its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from belvedere import footage, processes
from belvedere.secret import Secret
from edge.inference.settings import Settings as InferenceSettings
from edge.inference.worker import WorkerConfig as InferenceConfig
from edge.ingest.settings import Settings as IngestSettings
from edge.ingest.worker import WorkerConfig as IngestConfig
from tests.bench import peers
from tests.bench.held_parties import MODEL, PER_SECOND
from tests.bench.result import Line, Report

WIDTH, HEIGHT, FPS, BIT_RATE = 1280, 720, 15, 2_000_000
CLIP_SECONDS = 20
WARM_S, SECONDS = 5.0, 8.0
HELD = 0.95
AIM = 1.5
BEGIN = 4
MOST = 24
"""Cameras tried at most."""
START_TIMEOUT_S = 60.0
PEER_START_S = 90.0
"""Its imports alone take half a minute on a quiet machine. One that takes longer is left out."""
PARTY_S = 100.0
"""No further try of a party begins after this: what it held by then is its number, and a note says so."""

Try = Callable[[Path, int], str]
"""(folder, cameras) → empty where they were held, else why not."""


def b12(folder: Path) -> Report:
    """One line."""
    notes: list[str] = []
    clip, detector = _clip(), footage.ensure_detector(peers.REPOSITORY / ".cache")
    ours = _most(folder, "ours", notes, lambda where, count: _ours(where, count, clip, detector, notes))
    found: dict[str, float] = {}
    try:
        python = peers.python_of("roboflow", peers.ROBOFLOW)
        # Where the aim would just be reached: few tries of a minute each.
        begin = max(1, int(ours / AIM))
        held = _most(
            folder,
            "roboflow",
            notes,
            lambda where, count: _roboflow(where, count, clip, detector, python, notes),
            begin,
        )
        found["roboflow"] = held
    except peers.PeerAbsent as absent:
        notes.append(f"left out: {absent}")
    measure = (
        f"cameras {HEIGHT}p{FPS} held, detector at {PER_SECOND} a second each, {len(os.sched_getaffinity(0))} cores"
    )
    ratios = {name: ours / max(1.0, value) for name, value in found.items()}
    return Report([Line("B12", measure, "cameras", ours, found, None, ratios, reach=f"≥ {AIM:g}× roboflow")], notes)


def _most(folder: Path, party: str, notes: list[str], attempt: Try, begin: int = BEGIN) -> float:
    held, missed = 0, MOST + 1
    count, began = begin, time.monotonic()
    while missed - held > 1:
        where = folder / f"{party}-{count}"
        where.mkdir()
        why = attempt(where, count)
        if why:
            missed = count
        else:
            held = count
        count = min((held + missed) // 2, held * 2) if held else missed // 2
        if count in (held, missed):
            break
        if time.monotonic() - began > PARTY_S:
            notes.append(f"{party}: no time to try between {held} held and {missed}")
            break
    return float(held)


def _ours(folder: Path, count: int, clip: Path, detector: Path, notes: list[str]) -> str:
    with ExitStack() as stack:
        port = stack.enter_context(_cameras(folder, clip, count))
        names = [f"camera-{number}" for number in range(count)]
        ingests = [stack.enter_context(_ingest(folder, name, port)) for name in names]
        inference = stack.enter_context(_inference(folder, detector))
        _write_app(folder, names)
        pids = [process.pid for process in (*ingests, inference)]
        application = stack.enter_context(
            _child(
                [sys.executable, "-m", "tests.bench.held_parties", "application", str(WARM_S), str(SECONDS)],
                folder / "application.err",
                {"BELVEDERE_APP": str(folder / "app.json")},
            )
        )
        cores = _cores(application, folder / "application.err", [*pids, application.pid], START_TIMEOUT_S)
        said = _line(application, folder / "application.err", SECONDS + START_TIMEOUT_S)
        dropped = sum(_last(folder / f"{name}.out").get("frames_dropped", 0) for name in names)
        why = _missed(said, names)
        notes.append(
            f"ours, {count} cameras: {why or 'held'}; {cores:.2f} cores, oldest answer in a hundred {said['p99_s'] or 0:.2f} s"
        )
        if dropped:
            return f"{dropped} pictures dropped"
        return f"{said['errors']} calls failed" if said["errors"] else why


def _roboflow(folder: Path, count: int, clip: Path, detector: Path, python: Path, notes: list[str]) -> str:
    with ExitStack() as stack:
        port = stack.enter_context(_cameras(folder, clip, count))
        urls = [f"rtsp://127.0.0.1:{port}/camera-{number}" for number in range(count)]
        script = Path(__file__).with_name("roboflow_pipeline.py")
        process = stack.enter_context(
            _child(
                [str(python), str(script), str(detector), str(WARM_S), str(SECONDS), *urls], folder / "roboflow.err", {}
            )
        )
        try:
            cores = _cores(process, folder / "roboflow.err", [process.pid], PEER_START_S)
        except RuntimeError as error:
            raise peers.PeerAbsent(
                f"roboflow: did not begin within {PEER_START_S:g} s: {' '.join(str(error).split())[-120:]}"
            ) from error
        said = _line(process, folder / "roboflow.err", SECONDS + START_TIMEOUT_S)
        why = _missed(said, [str(number) for number in range(count)])
        notes.append(f"roboflow, {count} cameras: {why or 'held'}; {cores:.2f} cores")
        return why


def _cores(process: subprocess.Popen[bytes], errors: Path, pids: list[int], start_s: float) -> float:
    """What the processes take, as a number of cores, while answers are counted."""
    _line(process, errors, WARM_S + start_s)
    before, began = _cpu(pids), time.monotonic()
    time.sleep(SECONDS - 1.0)  # it ends soon after, and its figure with it
    return (_cpu(pids) - before) / (time.monotonic() - began)


def _missed(said: dict[str, Any], names: list[str]) -> str:
    wanted = PER_SECOND * SECONDS
    least = min(said["answers"].get(name, 0) for name in names)
    return (
        ""
        if least >= HELD * wanted
        else f"{least / SECONDS:.1f} answers a second of {PER_SECOND} at the slowest camera"
    )


@contextmanager
def _cameras(folder: Path, clip: Path, count: int) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.bench.held_parties", "cameras", str(clip), str(count)]
    with _child(command, folder / "cameras.err", {}) as process:
        yield int(_line(process, folder / "cameras.err", START_TIMEOUT_S)["port"])


@contextmanager
def _ingest(folder: Path, name: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    socket = folder / "cameras" / name / "frames.sock"
    socket.parent.mkdir(parents=True)
    config = IngestConfig(name, f"rtsp://127.0.0.1:{port}/{name}", "", Secret(""), socket, IngestSettings())
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.ingest.worker"], stdin=subprocess.PIPE, stdout=out, stderr=errors
        )
    with _ended(process):
        assert process.stdin is not None
        process.stdin.write(config.to_line())
        process.stdin.flush()
        yield process


@contextmanager
def _inference(folder: Path, detector: Path) -> Iterator[subprocess.Popen[bytes]]:
    # What is cached and measured is kept from try to try, as it is on an appliance.
    cache = folder.parent / "cache"
    config = InferenceConfig(folder / "inference" / "calls.sock", folder / "cameras", cache, InferenceSettings())
    with (folder / "inference.out").open("wb") as out, (folder / "inference.err").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.inference.worker"], stdin=subprocess.PIPE, stdout=out, stderr=errors
        )
    with _ended(process):
        row = {"model_id": "m", "path": str(detector), "framework": "", "precision": "FP32", "inputs": [_SPEC]}
        assert process.stdin is not None
        process.stdin.write(config.to_line() + json.dumps({"models": [row]}).encode() + b"\n")
        process.stdin.flush()
        until = time.monotonic() + START_TIMEOUT_S
        while not (models := _last(folder / "inference.out").get("models")) or models[0]["state"] != "ready":
            if time.monotonic() > until:
                raise RuntimeError((folder / "inference.err").read_text(errors="replace")[-500:])
            time.sleep(0.1)
        yield process


_SPEC = {"name": "image_tensor", "shape": [1, 300, 300, 3], "dtype": "uint8", "image": {"color": "RGB"}}


def _write_app(folder: Path, names: list[str]) -> None:
    streams = [{"camera_id": name, "stream_id": name, "stream_uri": ""} for name in names]
    spec = {
        "instance_id": "bench",
        "node": "code",
        "socket_root": str(folder),
        "inputs": {"video_in": {"type": "media", "streams": streams}},
        "models": {MODEL: {"model_id": "m", "inputs": [_SPEC]}},
    }
    (folder / "app.json").write_text(json.dumps(spec))


@contextmanager
def _child(command: list[str], errors: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, cwd=peers.REPOSITORY, env={**os.environ, **environment}
        )
    with _ended(process):
        yield process


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _line(process: subprocess.Popen[bytes], errors: Path, timeout_s: float) -> dict[str, Any]:
    import select

    assert process.stdout is not None
    until = time.monotonic() + timeout_s
    while select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        line = process.stdout.readline()
        if not line:
            break
        if line.startswith(b"{"):
            return dict(json.loads(line))
    raise RuntimeError(errors.read_text(errors="replace")[-500:] or "no answer in time")


def _last(file: Path) -> dict[str, Any]:
    """The last whole JSON line."""
    lines = file.read_bytes().rpartition(b"\n")[0].splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def _cpu(pids: list[int]) -> float:
    return sum(process.cpu_seconds for pid in pids for process in processes.tree(pid))


def _clip() -> Path:
    """The pedestrians at 720p, 15 pictures a second."""
    path = peers.FOLDER / "pedestrians-720p15.mp4"
    if path.exists():
        return path
    source = footage.ensure_clip(peers.REPOSITORY / ".cache")
    half = path.with_suffix(f".{os.getpid()}.mp4")
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"preset": "veryfast", "tune": "zerolatency"}
    with av.open(str(source)) as given, av.open(str(half), "w") as made:
        stream = made.add_stream("libx264", rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", BIT_RATE
        stream.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size = FPS * 2
        for number, frame in enumerate(given.decode(video=0)):
            if number >= CLIP_SECONDS * FPS:
                break
            picture = frame.reformat(WIDTH, HEIGHT, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            made.mux(stream.encode(picture))
        made.mux(stream.encode(None))
    half.replace(path)
    return path
