"""How well each application sees, as metrics: what rollouts gate on and alarms watch. Pure.

Namespace PanoramaDeviceMetrics, dimensions ApplicationInstanceName and ApplicationInstanceId, over the time since the last
look:

    FrameRate       frames that the application took, a second (Count/Second)
    ResultRate      pictures that it put to its outputs, a second
    DroppedFrames   frames of its cameras and pictures of its outputs that the appliance dropped (Count)
    Latency         from a frame's arrival to its picture, 99th percentile of the last second (Milliseconds)

ApplicationErrors is the supervisor's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from belvedere.fleet import DesiredState, Target, TargetApplication
from edge.agent.report import Statuses


@dataclass(frozen=True)
class Figure:
    """A metric's value."""

    name: str
    value: float
    unit: str
    dimensions: Mapping[str, str]


def figures(target: Target, before: Statuses, now: Statuses, elapsed_s: float) -> Iterator[Figure]:
    """Of every application that is to run and was there at both looks."""
    for app in target.applications:
        row, earlier = now.applications.get(app.instance_id), before.applications.get(app.instance_id)
        if app.desired is not DesiredState.RUNNING or row is None or earlier is None:
            continue
        dimensions = {"ApplicationInstanceName": app.name, "ApplicationInstanceId": app.instance_id}
        taken, put = (_since(earlier, row, name) / elapsed_s for name in ("frames_taken", "frames_put"))
        yield Figure("FrameRate", taken, "Count/Second", dimensions)
        yield Figure("ResultRate", put, "Count/Second", dimensions)
        yield Figure("DroppedFrames", _dropped(app, before, now), "Count", dimensions)
        latency = row.get("latency_app_ms") or {}
        if latency.get("count"):
            yield Figure("Latency", float(latency["p99"]), "Milliseconds", dimensions)


def _dropped(app: TargetApplication, before: Statuses, now: Statuses) -> float:
    pairs = [(before.outputs.get(app.instance_id), now.outputs.get(app.instance_id))]
    pairs += [(before.cameras.get(camera), now.cameras.get(camera)) for camera in app.camera_ids]
    return sum(_since(earlier or {}, row, "frames_dropped") for earlier, row in pairs if row is not None)


def _since(earlier: Mapping[str, Any], row: Mapping[str, Any], name: str) -> float:
    """A counter's growth; of one that began anew, all it has counted."""
    count, base = float(row.get(name) or 0), float(earlier.get(name) or 0)
    return count - base if count >= base else count
