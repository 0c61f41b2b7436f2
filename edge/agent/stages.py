"""What every stage of the data plane measures, out of what its process said last: camera, model, application, display. Pure.

    samples(statuses, names) -> [Sample]           in Prometheus' terms: seconds, bytes, counters that only rise
    changes(samples, before) -> [Datum], before    in CloudWatch's: what happened since the last time, times in milliseconds

One table a stage says which members of its status are measured, and what they are called on either side. Must not know where
figures go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PREFIX = "belvedere_"


class Kind(StrEnum):
    """What a figure is."""

    COUNTER = "counter"
    """Rises from the start of its process."""
    CAUSES = "causes"
    """Counters by cause: {cause: number}."""
    GAUGE = "gauge"
    """As it is now."""
    TIMES = "times"
    """{"p50", "p99"} in milliseconds, of the last ones."""
    AGE = "age"
    """Milliseconds until now."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One member of a status row."""

    member: str
    """A dot leads into an object."""
    kind: Kind
    name: str
    """Prometheus'; the stage's prefix and the unit are added."""
    metric: str
    """CloudWatch's; "" = not sent there."""
    help: str
    unit: str = "Count"
    """CloudWatch's."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One process's rows."""

    process: str
    rows: str
    prefix: str
    identity: str
    """The member that tells its rows apart."""
    dimension: str
    """What CloudWatch calls it."""
    measures: tuple[Measure, ...]


C, G, T = Kind.COUNTER, Kind.GAUGE, Kind.TIMES
STAGES = (
    Stage("ingest", "cameras", "camera", "camera_id", "CameraId", (
        Measure("fps_in", G, "fps_in", "CameraFrameRateIn", "Pictures a second that come from the camera.", "Count/Second"),
        Measure("fps", G, "fps_out", "CameraFrameRate", "Frames a second that readers can take.", "Count/Second"),
        Measure("frames_decoded", C, "frames_decoded", "CameraFramesDecoded", "Frames decoded."),
        Measure("drops", Kind.CAUSES, "frames_dropped", "CameraFramesDropped", "Pictures that became no frame, by cause."),
        Measure("bytes_in", C, "received_bytes", "CameraBytesIn", "Bytes that came from the camera.", "Bytes"),
        Measure("packets_lost", C, "packets_lost", "CameraPacketsLost", "Packets that never came."),
        Measure("reconnects", C, "reconnects", "CameraReconnects", "Connections made anew."),
        Measure("readers", G, "readers", "", "Who takes frames now."),
        Measure("frames_delivered", C, "frames_delivered", "CameraFramesDelivered", "Frames given to readers, all together."),
        Measure("frames_skipped", C, "frames_skipped", "CameraFramesSkipped", "Frames that readers were too slow for."),
        Measure("slots_held", G, "slots_held", "", "Slots of the ring that readers hold."),
        Measure("decode_ms", T, "decode", "DecodeTime", "Decoding of a frame.", "Milliseconds"),
        Measure("age_ms", T, "frame_age", "CameraFrameAge", "From a frame's last packet to its being there.", "Milliseconds"),
        Measure("last_frame_age_ms", Kind.AGE, "last_frame_age", "CameraLastFrameAge", "Since the last frame.", "Milliseconds"),
    )),
    Stage("inference", "models", "model", "model_id", "ModelId", (
        Measure("calls", C, "calls", "InferenceCalls", "Calls computed."),
        Measure("errors_by_code", Kind.CAUSES, "errors", "InferenceErrors", "Calls answered with an error, by its code."),
        Measure("queued", G, "queued", "InferenceQueued", "Calls that wait."),
        Measure("queue_age_ms", Kind.AGE, "queue_age", "InferenceQueueAge", "How long the oldest of them waits.", "Milliseconds"),
        Measure("infer_ms", T, "infer", "InferenceTime", "Computing a batch.", "Milliseconds"),
        Measure("queue_ms", T, "queue", "InferenceQueueTime", "A call's wait for its turn.", "Milliseconds"),
        Measure("prepare_ms", T, "prepare", "InferencePrepareTime", "Making an input of a picture.", "Milliseconds"),
        Measure("bytes_in", C, "input_bytes", "InferenceBytesIn", "Inputs, as the model takes them.", "Bytes"),
        Measure("bytes_out", C, "output_bytes", "InferenceBytesOut", "Outputs.", "Bytes"),
    )),
    Stage("supervisor", "applications", "application", "instance_id", "ApplicationInstanceId", (
        Measure("frames_taken", C, "frames_taken", "", "Frames that the application took."),
        Measure("frames_put", C, "frames_put", "", "Frames that it gave to its outputs."),
        Measure("calls", C, "calls", "", "Calls of models."),
        Measure("restarts", C, "restarts", "ApplicationRestarts", "Starts after the first."),
        Measure("log_lines_dropped", C, "log_lines_dropped", "LogLinesDropped", "Lines of output beyond the limits."),
        Measure("limit_hits", Kind.CAUSES, "limit_hits", "LimitHits", "Times that a limit was reached, by limit."),
        Measure("latency_app_ms", T, "latency", "", "From a frame's last packet to the application.", "Milliseconds"),
    )),
    Stage("display", "outputs", "display", "instance_id", "ApplicationInstanceId", (
        Measure("frames_received", C, "frames_received", "DisplayFramesReceived", "Pictures that the application gave."),
        Measure("frames_displayed", C, "frames_displayed", "DisplayedFrames", "Pictures shown to somebody."),
        Measure("drops", Kind.CAUSES, "frames_dropped", "DisplayDroppedFrames", "Pictures that were not shown, by cause."),
        Measure("bytes_out", C, "sent_bytes", "DisplayBytesOut", "Encoded video, once for all viewers.", "Bytes"),
        Measure("viewers", G, "viewers", "DisplayViewers", "Who looks now, besides the screen."),
        Measure("draw_ms", T, "draw", "DrawTime", "Composing a picture with its boxes and labels.", "Milliseconds"),
        Measure("encode_ms", T, "encode", "EncodeTime", "Encoding a picture.", "Milliseconds"),
        Measure("latency_display_ms", T, "latency", "DisplayLatency", "From a frame's last packet to its being encoded.", "Milliseconds"),
    )),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure now."""

    name: str
    kind: Kind
    """COUNTER or GAUGE."""
    help: str
    labels: tuple[tuple[str, str], ...]
    value: float
    metric: str
    unit: str
    dimensions: tuple[tuple[str, str], ...]
    scale: float = 1.0
    """From Prometheus' unit to CloudWatch's."""


@dataclass(frozen=True, slots=True)
class Datum:
    """What is sent to CloudWatch."""

    name: str
    unit: str
    dimensions: Mapping[str, str]
    value: float


def samples(statuses: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> list[Sample]:
    """`statuses`: by process, what it published last. `names`: of applications, by instance id; they become a label."""
    found: list[Sample] = []
    for stage in STAGES:
        for row in statuses.get(stage.process, {}).get(stage.rows, []):
            identity = str(row.get(stage.identity, ""))
            labels = [(stage.identity, identity)]
            if stage.identity == "instance_id":
                labels.append(("application", names.get(identity, "")))
            dimensions = ((stage.dimension, identity),)
            state = str(row.get("state", ""))
            if state:
                name, text = f"{PREFIX}{stage.prefix}_state", "1 for the state that it is in."
                found.append(Sample(name, G, text, (*labels, ("state", state)), 1.0, "", "", ()))
            for measure in stage.measures:
                found += _of(measure, stage, _member(row, measure.member), tuple(labels), dimensions)
    return found


def _member(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _of(
    measure: Measure,
    stage: Stage,
    value: Any,
    labels: tuple[tuple[str, str], ...],
    dimensions: tuple[tuple[str, str], ...],
) -> Iterable[Sample]:
    name = f"{PREFIX}{stage.prefix}_{measure.name}"
    if measure.kind is Kind.TIMES and isinstance(value, Mapping):
        for part, quantile in (("p50", "0.5"), ("p99", "0.99")):
            if isinstance(value.get(part), (int, float)):
                metric = measure.metric and measure.metric + part.upper()
                yield Sample(
                    f"{name}_seconds", G, measure.help, (*labels, ("quantile", quantile)), value[part] / 1000, metric,
                    measure.unit, dimensions, 1000,
                )  # fmt: skip
    elif measure.kind is Kind.CAUSES and isinstance(value, Mapping):
        for cause, count in value.items():
            yield Sample(
                name, C, measure.help, (*labels, ("cause", str(cause))), float(count), measure.metric, measure.unit,
                (*dimensions, ("Cause", str(cause))),
            )  # fmt: skip
    elif measure.kind is Kind.AGE and isinstance(value, (int, float)):
        yield Sample(
            f"{name}_seconds", G, measure.help, labels, value / 1000, measure.metric, measure.unit, dimensions, 1000
        )
    elif measure.kind in (C, G) and isinstance(value, (int, float)):
        yield Sample(name, measure.kind, measure.help, labels, float(value), measure.metric, measure.unit, dimensions)


Before = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Counters at the last time, by name and labels."""


def changes(now: Iterable[Sample], before: Before) -> tuple[list[Datum], Before]:
    """What to send, and what to compare the next time with. The first sight of a counter sends nothing: since when it has been rising
    is not known. One that fell began anew.
    """
    data: list[Datum] = []
    counters: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in now:
        value = sample.value * sample.scale
        if sample.kind is C:
            key = (sample.name, sample.labels)
            counters[key] = value
            if key not in before:
                continue
            value = value - before[key] if value >= before[key] else value
        if sample.metric:
            data.append(Datum(sample.metric, sample.unit, dict(sample.dimensions), value))
    return data, counters
