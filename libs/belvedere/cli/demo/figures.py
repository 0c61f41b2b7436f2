"""The demo's figures: two looks at the same counters, and what lies between them, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Quantiles:
    """Milliseconds; None where nothing was measured."""

    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class ProcessRow:
    name: str
    cpu_seconds: float
    pss_mb: float


@dataclass(frozen=True)
class Figures:
    """What `DEMO_JSON` holds."""

    seconds: float
    """How long was measured, with somebody looking."""
    frames_decoded: int
    frames_delivered: int
    frames_inferred: int
    frames_displayed: int
    frames_seen: int
    """Decoded by the demo's own viewer from the RTSP output."""
    fps: float
    people_per_frame_mean: float | None
    latency_app_ms: Quantiles
    """Arrival of a frame's last packet on the appliance → the application's `get` returns."""
    latency_display_ms: Quantiles
    """The same arrival → the annotated frame is encoded."""
    deploy_seconds_cold: float
    deploy_seconds_warm: float
    processes: list[ProcessRow] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def missing(self) -> list[str]:
        """The stages that did not really happen."""
        stages = {
            "no frame was decoded": self.frames_decoded,
            "no frame reached the application": self.frames_delivered,
            "no frame went through the model": self.frames_inferred,
            "no frame was displayed": self.frames_displayed,
            "the viewer saw nothing": self.frames_seen,
            "the application's metric has no data": self.people_per_frame_mean is not None,
            "no latency was measured at the application": self.latency_app_ms.p50 is not None,
            "no latency was measured at the display": self.latency_display_ms.p50 is not None,
        }
        return [text for text, happened in stages.items() if not happened]

    def table(self) -> str:
        """The summary as a person reads it."""
        people = "–" if self.people_per_frame_mean is None else f"{self.people_per_frame_mean:.2f}"
        rows = [
            ("frames decoded", f"{self.frames_decoded}"),
            ("frames delivered", f"{self.frames_delivered}"),
            ("frames inferred", f"{self.frames_inferred}"),
            ("frames displayed", f"{self.frames_displayed}   ({self.frames_seen} seen by the viewer)"),
            ("frames a second", f"{self.fps:.1f}"),
            ("people per frame", people),
            ("camera → application", _milliseconds(self.latency_app_ms)),
            ("camera → display", _milliseconds(self.latency_display_ms)),
            ("first deployment", f"{self.deploy_seconds_cold:.2f} s"),
            ("one changed line", f"{self.deploy_seconds_warm:.2f} s"),
        ]
        lines = [f"  {name:<24}{value}" for name, value in rows]
        lines.append(f"\n  {'process':<32}{'cpu s':>8}{'PSS MB':>9}")
        lines += [f"  {row.name:<32}{row.cpu_seconds:>8.1f}{row.pss_mb:>9.1f}" for row in self.processes]
        total = sum(row.pss_mb for row in self.processes)
        lines.append(f"  {'all':<32}{sum(row.cpu_seconds for row in self.processes):>8.1f}{total:>9.1f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Counters:
    """One look at an appliance."""

    decoded: int
    delivered: int
    inferred: int
    displayed: int

    @classmethod
    def of(cls, overview: dict[str, Any], instance_id: str) -> Counters:
        """From the agent's overview, for one application instance."""
        application = row_of(overview, "supervisor", "applications", instance_id)
        output = row_of(overview, "display", "outputs", instance_id)
        return cls(
            decoded=sum(int(camera["frames_decoded"]) for camera in overview["ingest"].get("cameras", ())),
            delivered=int(application.get("frames_taken", 0)),
            inferred=sum(int(model["calls"]) for model in overview["inference"].get("models", ())),
            displayed=int(output.get("frames_displayed", 0)),
        )


def row_of(overview: dict[str, Any], process: str, kind: str, instance_id: str) -> dict[str, Any]:
    """The row of one instance in one process's status; empty where there is none."""
    rows: list[dict[str, Any]] = overview[process].get(kind, [])
    return next((row for row in rows if row["instance_id"] == instance_id), {})


def quantiles(row: dict[str, Any] | None) -> Quantiles:
    row = row or {}
    return Quantiles(row.get("p50"), row.get("p99"))


def _milliseconds(values: Quantiles) -> str:
    if values.p50 is None or values.p99 is None:
        return "–"
    return f"p50 {values.p50:.1f} ms   p99 {values.p99:.1f} ms"
