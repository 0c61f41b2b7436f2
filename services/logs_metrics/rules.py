"""The decisions of logs_metrics: names, limits, paging tokens, which group a device may write to. Pure.

Sources of the limits: the CloudWatch Logs and CloudWatch API references (PutLogEvents, GetLogEvents, PutMetricData,
GetMetricStatistics).
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from belvedere.chassis.errors import FieldError, Invalid

MAX_EVENTS_PER_PUT = 10_000
MAX_EVENT_BYTES = 256 * 1024
MAX_EVENTS_PER_GET = 10_000
MAX_GET_BYTES = 1024 * 1024
"""GetLogEvents ends a page here, whatever `limit` says."""
MAX_DESCRIBE = 50
MAX_METRICS_PER_PAGE = 500
MAX_DATA_PER_PUT = 1_000
MAX_DIMENSIONS = 30
MAX_DATAPOINTS = 1_440

_GROUP = re.compile(r"^[.\-_/#A-Za-z0-9]{1,512}$")
_STREAM = re.compile(r"^[^:*]{1,512}$")


def check_group(name: str) -> str:
    """`name` if it can be a log group's. Raises Invalid."""
    if not _GROUP.match(name):
        raise Invalid(
            f"{name[:64]!r} cannot be the name of a log group: 1 to 512 letters, digits and . - _ / #",
            fields=[("logGroupName", "1 to 512 letters, digits and . - _ / #")],
        )
    return name


def check_stream(name: str) -> str:
    """`name` if it can be a log stream's. Raises Invalid."""
    if not _STREAM.match(name):
        raise Invalid(
            f"{name[:64]!r} cannot be the name of a log stream: 1 to 512 characters without : and *",
            fields=[("logStreamName", "1 to 512 characters without : and *")],
        )
    return name


def may_write(device_id: str, group: str) -> bool:
    """A device writes to its own groups only: /aws/panorama/devices/<id> and below."""
    own = f"/aws/panorama/devices/{device_id}"
    return (group == own or group.startswith(own + "/")) and _GROUP.match(group) is not None


@dataclass(frozen=True, order=True)
class Position:
    """Where an event stands in its stream: by time, then by the sequence of who wrote it, then by arrival."""

    timestamp_ms: int
    sequence: int
    id: int

    def after(self) -> "Position":
        """The first place behind this one."""
        return Position(self.timestamp_ms, self.sequence, self.id + 1)


@dataclass(frozen=True)
class Cursor:
    """A paging token of GetLogEvents: forward from behind `position`, or backward from before it."""

    forward: bool
    position: Position

    def token(self) -> str:
        """As the API shows it: CloudWatch's begin with f/ and b/ too."""
        place = self.position
        return f"{'f' if self.forward else 'b'}/{place.timestamp_ms}/{place.sequence}/{place.id}"

    @classmethod
    def of(cls, token: str) -> "Cursor":
        """Reads a token. Raises Invalid."""
        match = re.fullmatch(r"([fb])/(-?\d{1,18})/(-?\d{1,19})/(-?\d{1,18})", token)
        if match is None:
            raise Invalid(
                "nextToken is not valid: use one that GetLogEvents gave.", fields=[("nextToken", "not valid")]
            )
        kind, timestamp, sequence, row = match.groups()
        return cls(kind == "f", Position(int(timestamp), int(sequence), int(row)))


def page_tokens(
    request: Cursor | None, first: Position | None, last: Position | None, start_ms: int
) -> tuple[str, str]:
    """(next forward token, next backward token) of a page from `first` to `last` (None: it is empty).

    At the end of the stream the forward token is the one that was sent, which is how CloudWatch's clients know that
    there is no more; in the same way backward.
    """
    if first is not None and last is not None:
        return Cursor(True, last).token(), Cursor(False, first).token()
    if request is None:
        # Nothing yet: whatever comes lies forward from the start.
        start = Position(start_ms, -1, -1)
        return Cursor(True, start).token(), Cursor(False, start).token()
    if request.forward:
        return request.token(), Cursor(False, request.position.after()).token()
    before = Position(request.position.timestamp_ms, request.position.sequence, request.position.id - 1)
    return Cursor(True, before).token(), request.token()


def limit_of(asked: int, most: int, field: str) -> int:
    """`most` for 0 (not said). Raises Invalid outside 1 to `most`."""
    if asked == 0:
        return most
    if not 1 <= asked <= most:
        raise Invalid(f"{field} is {asked}: it must lie between 1 and {most}.", fields=[(field, f"1 to {most}")])
    return asked


def dimensions_key(dimensions: Mapping[str, str]) -> str:
    """The same text for the same dimensions, whatever their order."""
    return json.dumps(dict(dimensions), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def check_metric(namespace: str, name: str, dimensions: Mapping[str, str], path: str = "") -> None:
    """Raises Invalid naming what is wrong with the metric's name."""
    wrong: list[FieldError] = []
    if not 1 <= len(namespace) <= 255 or namespace.startswith(":"):
        wrong.append(("Namespace", "1 to 255 characters, not beginning with a colon"))
    if not 1 <= len(name) <= 255:
        wrong.append((f"{path}MetricName", "1 to 255 characters"))
    if len(dimensions) > MAX_DIMENSIONS:
        wrong.append((f"{path}Dimensions", f"at most {MAX_DIMENSIONS}"))
    for key, value in dimensions.items():
        if not 1 <= len(key) <= 255 or not 1 <= len(value) <= 1024:
            wrong.append((f"{path}Dimensions.{key[:32]}", "a name of 1 to 255 and a value of 1 to 1024 characters"))
    if wrong:
        raise Invalid("The metric is not valid: " + "; ".join(f"{at}: {text}" for at, text in wrong), fields=wrong)


def check_period(start_s: int, end_s: int, period_s: int) -> None:
    """Raises Invalid where GetMetricStatistics cannot answer: order, period, number of datapoints."""
    if start_s >= end_s:
        raise Invalid("StartTime must be before EndTime.", fields=[("StartTime", "before EndTime")])
    if period_s < 1 or (period_s > 60 and period_s % 60) or (period_s < 60 and period_s not in (1, 5, 10, 20, 30)):
        raise Invalid(
            f"Period is {period_s}: 1, 5, 10, 20, 30 or a multiple of 60 seconds is needed.",
            fields=[("Period", "1, 5, 10, 20, 30 or a multiple of 60")],
        )
    if (end_s - start_s) / period_s > MAX_DATAPOINTS:
        raise Invalid(
            f"{(end_s - start_s) // period_s} datapoints were asked for, {MAX_DATAPOINTS} are the most: "
            "take a longer Period or a shorter time.",
            fields=[("Period", f"at most {MAX_DATAPOINTS} datapoints")],
        )


def check_values(values: Sequence[float], path: str) -> None:
    """Raises Invalid where sum, minimum, maximum or count of a datum is no finite number, or the count is not above
    0."""
    if not all(math.isfinite(value) for value in values) or values[3] <= 0:
        raise Invalid(
            f"{path}: sum, minimum, maximum and sample count must be finite numbers, and the count above 0.",
            fields=[(path, "finite numbers, a count above 0")],
        )


def dimensions_of(key: str) -> dict[str, str]:
    """What `dimensions_key` was made of."""
    return {str(name): str(value) for name, value in json.loads(key).items()}


def has_dimensions(dimensions: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all `wanted` are among `dimensions`; an empty value stands for any."""
    return all(name in dimensions and value in ("", dimensions[name]) for name, value in wanted.items())
