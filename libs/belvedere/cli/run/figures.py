"""What a local run has come to: from the appliance's own counters, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from belvedere.cli.run.engine import Engine, Row


@dataclass(frozen=True)
class Quantiles:
    """Milliseconds; None where nothing was measured."""

    p50: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any] | None) -> Quantiles:
        row = row or {}
        return cls(row.get("p50"), row.get("p99"))

    def __str__(self) -> str:
        if self.p50 is None or self.p99 is None:
            return "–"
        return f"p50 {self.p50:.1f} ms   p99 {self.p99:.1f} ms"


@dataclass(frozen=True)
class Results:
    """What the application marked in its pictures."""

    pictures: int = 0
    boxes: int = 0
    pictures_with_boxes: int = 0
    labels: int = 0
    texts: tuple[str, ...] = ()
    """The last different ones, the newest last."""

    @property
    def boxes_mean(self) -> float:
        """A picture's."""
        return self.boxes / self.pictures if self.pictures else 0.0


@dataclass(frozen=True)
class Figures:
    """What `--json` holds."""

    started_s: float | None
    """From the command to the application's first delivery; None where it never delivered."""
    seconds: float
    """That it has delivered since."""
    frames_decoded: int
    frames_taken: int
    """By the application."""
    frames_put: int
    fps: float
    """Frames taken a second, since the first delivery."""
    calls: int
    """Of models."""
    call_errors: int
    restarts: int
    latency_app_ms: Quantiles
    """Arrival of a frame's last packet → the application's `get` returns."""
    latency_display_ms: Quantiles
    """The same arrival → the annotated frame is encoded, while somebody looked."""
    infer_ms: Quantiles
    results: Results = field(default_factory=Results)
    cameras: dict[str, int] = field(default_factory=dict)
    """Frames decoded, by camera."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        """As a person reads it."""
        started = "never" if self.started_s is None else f"{self.started_s:.2f} s"
        rows = [
            ("first delivery after", started),
            ("frames decoded", f"{self.frames_decoded}"),
            ("frames taken", f"{self.frames_taken}   ({self.fps:.1f} a second, over {self.seconds:.1f} s)"),
            ("frames put", f"{self.frames_put}"),
            ("camera → application", str(self.latency_app_ms)),
        ]
        if self.latency_display_ms.p50 is not None:
            rows.append(("camera → display", str(self.latency_display_ms)))
        if self.calls:
            rows.append(("model calls", f"{self.calls}   ({self.call_errors} failed)   {self.infer_ms}"))
        if self.results.pictures:
            rows.append(
                (
                    "results",
                    f"{self.results.boxes} boxes, {self.results.labels} labels in {self.results.pictures} pictures",
                )
            )
        if self.restarts:
            rows.append(("restarts", str(self.restarts)))
        return "\n".join(f"  {name:<24}{value}" for name, value in rows)


@dataclass(frozen=True)
class Count:
    """Counters at one moment; those of applications that were replaced are not in them."""

    taken: int
    put: int
    decoded: Mapping[str, int]
    calls: int
    call_errors: int

    @classmethod
    def of(cls, engine: Engine, instance_id: str) -> Count:
        application = engine.application(instance_id)
        models = engine.rows["models"].values()
        return cls(
            taken=_whole(application, "frames_taken"),
            put=_whole(application, "frames_put"),
            decoded={camera_id: _whole(row, "frames_decoded") for camera_id, row in engine.rows["cameras"].items()},
            calls=sum(_whole(row, "calls") for row in models),
            call_errors=sum(_whole(row, "errors") for row in models),
        )


def figures(
    engine: Engine,
    instance_id: str,
    before: Count,
    *,
    started_s: float | None,
    seconds: float,
    taken_at_first: int,
) -> Figures:
    """What has come since `before`, when the application was started; `seconds` since its first delivery, when it had
    taken `taken_at_first` frames."""
    now, application, output = (
        Count.of(engine, instance_id),
        engine.application(instance_id),
        engine.output(instance_id),
    )
    models = [row for row in engine.rows["models"].values() if row.get("calls")]
    slowest = max(models, key=lambda row: (row.get("infer_ms") or {}).get("p50") or 0.0, default=None)
    taken = now.taken - before.taken
    decoded = {name: count - before.decoded.get(name, 0) for name, count in now.decoded.items()}
    results = Results(
        pictures=_whole(output, "frames_received"),
        boxes=_whole(output, "rects"),
        pictures_with_boxes=_whole(output, "pictures_with_rects"),
        labels=_whole(output, "labels"),
        texts=tuple(output.get("texts") or ()),
    )
    return Figures(
        started_s=started_s,
        seconds=seconds,
        frames_decoded=sum(decoded.values()),
        frames_taken=taken,
        frames_put=now.put - before.put,
        fps=max(now.taken - taken_at_first, 0) / seconds if seconds > 0 else 0.0,
        calls=now.calls - before.calls,
        call_errors=now.call_errors - before.call_errors,
        restarts=_whole(application, "restarts"),
        latency_app_ms=Quantiles.of(application.get("latency_app_ms")),
        latency_display_ms=Quantiles.of(output.get("latency_display_ms")),
        infer_ms=Quantiles.of((slowest or {}).get("infer_ms")),
        results=results,
        cameras=decoded,
    )


def _whole(row: Row, name: str) -> int:
    return int(row.get(name) or 0)
