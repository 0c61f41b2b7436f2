"""A test of an application: which clip it gets for how long, and what it must have done then (docs/run.md).

    APP_DIR/tests/entrance.toml

    [run]
    camera = "entrance.mp4"          # or node = file below [run.cameras]
    seconds = 10                     # or frames = 100, or once = true
    parameters = {threshold = 0.6}

    [expect]
    frames = 50
    boxes = 1
    labels = ['People: \\d+']

Reads and judges; runs nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from belvedere.cli.run.figures import Figures

DEFAULT_SECONDS = 10.0
DEFAULT_LIMIT_S = 120.0
_RUN = ("camera", "cameras", "seconds", "frames", "once", "limit_s", "parameters", "fault")
_EXPECT = (
    "frames", "pictures", "fps", "latency_ms", "boxes", "boxes_mean", "labels", "log", "no_log", "restarts",
    "model_errors",
)  # fmt: skip


class ScenarioInvalid(Exception):
    """A scenario can't be followed: everything that is wrong, with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Expectation:
    """What must be so at the end. Counts are since the first delivery."""

    frames: int = 1
    """Taken, at least."""
    pictures: int = 0
    """Put to the output, at least."""
    fps: float = 0.0
    """Frames taken a second, at least."""
    latency_ms: float | None = None
    """Camera to application, 99 of 100, at most."""
    boxes: int = 0
    """In all pictures together, at least."""
    boxes_mean: tuple[float, float] | None = None
    """A picture's, from and to."""
    labels: tuple[str, ...] = ()
    """Expressions; each is found in the text of a label."""
    log: tuple[str, ...] = ()
    """Expressions; each is found in a line that the application wrote."""
    no_log: tuple[str, ...] = ("Traceback",)
    """Expressions that no such line has."""
    restarts: int = 0
    """At most."""
    model_errors: int = 0
    """At most."""


@dataclass(frozen=True)
class Scenario:
    """One test."""

    name: str
    cameras: tuple[str, ...] = ()
    """As `--camera` takes them."""
    values: tuple[str, ...] = ()
    """As `--override` takes them."""
    fault: Path | None = None
    seconds: float | None = DEFAULT_SECONDS
    frames: int | None = None
    once: bool = False
    limit_s: float = DEFAULT_LIMIT_S
    """The longest it may take to deliver, or to come to `frames`."""
    expect: Expectation = field(default_factory=Expectation)


def load_scenarios(folder: Path) -> tuple[Scenario, ...]:
    """Every `*.toml` in `folder`, by name, that has a [run] or an [expect]. Raises ScenarioInvalid."""
    wrong: list[str] = []
    found: list[Scenario] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            document = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            wrong.append(f"{path}: is not TOML: {error}")
            continue
        if "run" in document or "expect" in document:  # others are fault scripts
            found.append(_scenario(path, document, wrong))
    if wrong:
        raise ScenarioInvalid(wrong)
    return tuple(found)


def judge(expect: Expectation, found: Figures, lines: Sequence[str]) -> list[str]:
    """What is not as expected; empty: all is."""
    least = (
        ("frames taken", found.frames_taken, expect.frames),
        ("pictures put", found.results.pictures, expect.pictures),
        ("frames a second", round(found.fps, 2), expect.fps),
        ("boxes", found.results.boxes, expect.boxes),
    )
    most = (
        ("restarts", found.restarts, expect.restarts),
        ("failed model calls", found.call_errors, expect.model_errors),
        ("latency camera to application, p99 ms", found.latency_app_ms.p99, expect.latency_ms),
    )
    failures = [f"{what}: {value}, at least {limit} wanted" for what, value, limit in least if value < limit]
    for what, value, limit in most:
        if limit is not None and (value is None or value > limit):
            failures.append(f"{what}: {value}, at most {limit} wanted")
    if expect.boxes_mean is not None:
        low, high = expect.boxes_mean
        if not low <= found.results.boxes_mean <= high:
            failures.append(f"boxes a picture: {found.results.boxes_mean:.2f}, {low:g} to {high:g} wanted")
    for pattern in expect.labels:
        if not any(re.search(pattern, text) for text in found.results.texts):
            failures.append(f"no label is like {pattern!r}; the last: {list(found.results.texts[-3:])}")
    failures += [
        f"no line of the log is like {pattern!r}"
        for pattern in expect.log
        if not any(re.search(pattern, line) for line in lines)
    ]
    for pattern in expect.no_log:
        line = next((line for line in lines if re.search(pattern, line)), None)
        if line is not None:
            failures.append(f"a line of the log is like {pattern!r}: {line.strip()}")
    return failures


def _scenario(path: Path, document: Mapping[str, Any], wrong: list[str]) -> Scenario:
    run, expect = _table(path, document, "run", _RUN, wrong), _table(path, document, "expect", _EXPECT, wrong)
    wrong += [
        f"{path}: {name}: is not known; a test has [run] and [expect]"
        for name in document
        if name not in ("run", "expect")
    ]
    read = _Reader(path, wrong)
    frames, once = read.number(run, "run.frames", None, whole=True), run.get("once") is True
    seconds = read.number(run, "run.seconds", None if frames is not None or once else DEFAULT_SECONDS)
    if sum(name in run for name in ("seconds", "frames", "once")) > 1:
        wrong.append(f"{path}: run: say one of seconds, frames and once")
    parameters = run.get("parameters", {})
    values = (
        tuple(f"{name}={_text(value)}" for name, value in parameters.items()) if isinstance(parameters, dict) else ()
    )
    fault = path.parent / str(run["fault"]) if "fault" in run else None
    if fault is not None and not fault.is_file():
        wrong.append(f"{path}: run.fault: {fault} is not there")
    mean = expect.get("boxes_mean")
    if mean is not None and not (
        isinstance(mean, list) and len(mean) == 2 and all(isinstance(item, int | float) for item in mean)
    ):
        wrong.append(f"{path}: expect.boxes_mean: must be two numbers, from and to")
        mean = None
    plain = Expectation()
    return Scenario(
        name=path.stem,
        cameras=_cameras(path, run, wrong),
        values=values,
        fault=fault,
        seconds=seconds,
        frames=None if frames is None else int(frames),
        once=once,
        limit_s=read.number(run, "run.limit_s", DEFAULT_LIMIT_S) or DEFAULT_LIMIT_S,
        expect=replace(
            plain,
            frames=int(read.number(expect, "expect.frames", 1, whole=True) or 0),
            pictures=int(read.number(expect, "expect.pictures", 0, whole=True) or 0),
            fps=read.number(expect, "expect.fps", 0.0) or 0.0,
            latency_ms=read.number(expect, "expect.latency_ms", None),
            boxes=int(read.number(expect, "expect.boxes", 0, whole=True) or 0),
            boxes_mean=None if mean is None else (float(mean[0]), float(mean[1])),
            labels=read.patterns(expect, "expect.labels", ()),
            log=read.patterns(expect, "expect.log", ()),
            no_log=read.patterns(expect, "expect.no_log", plain.no_log),
            restarts=int(read.number(expect, "expect.restarts", 0, whole=True) or 0),
            model_errors=int(read.number(expect, "expect.model_errors", 0, whole=True) or 0),
        ),
    )


def _cameras(path: Path, run: Mapping[str, Any], wrong: list[str]) -> tuple[str, ...]:
    chosen: list[tuple[str, str]] = []
    for node, given in {"": run.get("camera", []), **_mapping(run.get("cameras"))}.items():
        for source in given if isinstance(given, list) else [given]:
            if not isinstance(source, str):
                wrong.append(f"{path}: run.camera: must be files or addresses, not {source!r}")
                continue
            where = source if "://" in source else str(path.parent / source)
            if "://" not in source and not Path(where).is_file():
                wrong.append(f"{path}: run.camera: {where} is not there")
            chosen.append((node, where))
    return tuple(f"{node}={where}" if node else where for node, where in chosen)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _table(
    path: Path, document: Mapping[str, Any], name: str, known: Sequence[str], wrong: list[str]
) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        wrong.append(f"{path}: {name}: must be a table, written [{name}]")
        return {}
    wrong += [f"{path}: {name}.{key}: is not known; there are: {', '.join(known)}" for key in table if key not in known]
    return table


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Reader:
    """Values of one file, with their places."""

    def __init__(self, path: Path, wrong: list[str]) -> None:
        self._path = path
        self._wrong = wrong

    def number(self, table: Mapping[str, Any], place: str, default: float | None, whole: bool = False) -> float | None:
        name = place.partition(".")[2]
        if name not in table:
            return default
        value = table[name]
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < 0:
            self._wrong.append(
                f"{self._path}: {place}: must be a {'whole ' if whole else ''}number, 0 or more, not {value!r}"
            )
            return default
        return float(value)

    def patterns(self, table: Mapping[str, Any], place: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = table.get(place.partition(".")[2])
        if value is None:
            return default
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            try:
                re.compile(text)
            except (TypeError, re.error):
                self._wrong.append(f"{self._path}: {place}: {text!r} is no regular expression")
                return default
        return tuple(texts)
