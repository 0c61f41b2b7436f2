"""The decisions of logs_metrics: names, limits, paging tokens, which group a device may write to. Pure.

Sources of the limits: the CloudWatch Logs and CloudWatch API references (PutLogEvents, GetLogEvents, PutMetricData,
GetMetricStatistics).
"""

import json
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from belvedere.chassis.errors import FieldError, Invalid

MAX_EVENTS_PER_PUT = 10_000
MAX_PUT_BYTES = 1024 * 1024
EVENT_OVERHEAD_BYTES = 26
"""What an event counts beyond its message, in PutLogEvents' limit and in stored bytes."""
MAX_SPAN_MS = 24 * 3600 * 1000
MAX_AGE_MS = 14 * 24 * 3600 * 1000
MAX_AHEAD_MS = 2 * 3600 * 1000
DATUM_MAX_AGE_S = 14 * 24 * 3600
DATUM_MAX_AHEAD_S = 2 * 3600
MAX_DEVICE_EVENT_CHARACTERS = 256 * 1024
"""Of what an appliance sends: its messages are no larger."""
RETENTION_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)
MAX_FILTER_STREAMS = 100
MAX_FILTER_PATTERN = 1024
MAX_TIME_MS = 2**62
MAX_EVENTS_PER_GET = 10_000
MAX_GET_BYTES = 1024 * 1024
"""GetLogEvents ends a page here, whatever `limit` says."""
MAX_DESCRIBE = 50
MAX_METRICS_PER_PAGE = 500
MAX_DATA_PER_PUT = 1_000
MAX_DIMENSIONS = 30
MAX_DATAPOINTS = 1_440
MAX_DATA_PER_GET = 100_800
"""Of GetMetricData, all its queries together."""

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


@dataclass(frozen=True)
class Batch:
    """What of a PutLogEvents is stored: events [begin, end) of it; the other fields are None where all are fine."""

    begin: int
    end: int
    too_old_end: int | None
    expired_end: int | None
    too_new_start: int | None


def check_batch(timestamps_ms: Sequence[int], sizes: Sequence[int], now_ms: int, retention_days: int) -> Batch:
    """Holds a batch against PutLogEvents' limits. `sizes`: bytes of the messages in UTF-8.

    Raises Invalid where all of it is refused: number, bytes, order, span. Events that are too old or too far ahead are
    told by index.
    """
    if not 1 <= len(timestamps_ms) <= MAX_EVENTS_PER_PUT:
        raise _invalid("logEvents", f"{len(timestamps_ms)} log events: 1 to {MAX_EVENTS_PER_PUT} are taken at once")
    if min(sizes) == 0:
        raise _invalid(f"logEvents[{sizes.index(0)}].message", "a message needs at least one character")
    size = sum(sizes) + EVENT_OVERHEAD_BYTES * len(sizes)
    if size > MAX_PUT_BYTES:
        raise _invalid("logEvents", f"Upload too large: {size} bytes exceeds limit of {MAX_PUT_BYTES}")
    if any(later < earlier for earlier, later in pairwise(timestamps_ms)):
        raise _invalid("logEvents", "Log events in a single PutLogEvents request must be in chronological order")
    if timestamps_ms[-1] - timestamps_ms[0] > MAX_SPAN_MS:
        raise _invalid("logEvents", "The batch of log events in a single request cannot span more than 24 hours")
    too_old = bisect_left(timestamps_ms, now_ms - MAX_AGE_MS)
    expired = bisect_left(timestamps_ms, now_ms - retention_days * 24 * 3600 * 1000)
    too_new = bisect_right(timestamps_ms, now_ms + MAX_AHEAD_MS)
    return Batch(
        begin=max(too_old, expired),
        end=too_new,
        too_old_end=too_old or None,
        expired_end=expired if expired > too_old else None,
        too_new_start=too_new if too_new < len(timestamps_ms) else None,
    )


def check_retention(days: int) -> int:
    """`days` if CloudWatch Logs knows that retention. Raises Invalid."""
    if days not in RETENTION_DAYS:
        raise _invalid("retentionInDays", f"{days} is not one of {', '.join(map(str, RETENTION_DAYS))}")
    return days


def check_filter(streams: Sequence[str], prefix: str, pattern: str) -> None:
    """Raises Invalid where FilterLogEvents cannot take these."""
    if len(streams) > MAX_FILTER_STREAMS:
        raise _invalid(
            "logStreamNames", f"{len(streams)} log streams: {MAX_FILTER_STREAMS} at most are searched by name"
        )
    if streams and prefix:
        raise _invalid("logStreamNamePrefix", "logStreamNames and logStreamNamePrefix cannot stand together")
    if len(pattern) > MAX_FILTER_PATTERN:
        raise _invalid("filterPattern", f"A filter pattern has {MAX_FILTER_PATTERN} characters at most")


def place_of(cursor: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """The place in a token of FilterLogEvents. Raises Invalid."""
    place = cursor.get("place")
    if not isinstance(place, list) or len(place) != 4 or not all(type(n) is int and abs(n) < 2**63 for n in place):
        raise _invalid("nextToken", "nextToken is not valid: use one that FilterLogEvents gave")
    return place[0], place[1], place[2], place[3]


def _invalid(field: str, why: str) -> Invalid:
    return Invalid(f"{why}.", fields=[(field, why)])


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
    check_span(start_s, end_s, period_s)
    if (end_s - start_s) / period_s > MAX_DATAPOINTS:
        raise Invalid(
            f"{(end_s - start_s) // period_s} datapoints were asked for, {MAX_DATAPOINTS} are the most: "
            "take a longer Period or a shorter time.",
            fields=[("Period", f"at most {MAX_DATAPOINTS} datapoints")],
        )


def check_span(start_s: int, end_s: int, period_s: int) -> None:
    """Raises Invalid where the end is not behind the start, or the period is none that CloudWatch knows."""
    if start_s >= end_s:
        raise Invalid("StartTime must be before EndTime.", fields=[("StartTime", "before EndTime")])
    if period_s < 1 or (period_s > 60 and period_s % 60) or (period_s < 60 and period_s not in (1, 5, 10, 20, 30)):
        raise Invalid(
            f"Period is {period_s}: 1, 5, 10, 20, 30 or a multiple of 60 seconds is needed.",
            fields=[("Period", "1, 5, 10, 20, 30 or a multiple of 60")],
        )


def next_begin(last_s: int, period_s: int, ascending: bool) -> int:
    """Where the page behind the period that began at `last_s` starts; going backwards: where it ends."""
    return last_s + period_s if ascending else last_s


def number_in(cursor: Mapping[str, Any], name: str) -> int:
    """A number out of a token. Raises Invalid: who makes tokens up gets no further."""
    number = cursor.get(name)
    if not isinstance(number, int) or not 0 <= number < 2**62:
        raise _invalid("NextToken", "NextToken is not valid: use the one of the previous page of the same request")
    return number


def average(total: float, count: float) -> float:
    """0 where there are no samples."""
    return total / count if count else 0.0


def check_values(values: Sequence[float], path: str) -> None:
    """Raises Invalid where sum, minimum, maximum or count of a datum is no finite number, or the count is not above
    0."""
    if not all(math.isfinite(value) for value in values) or values[3] <= 0:
        raise Invalid(
            f"{path}: sum, minimum, maximum and sample count must be finite numbers, and the count above 0.",
            fields=[(path, "finite numbers, a count above 0")],
        )


def check_time(timestamp_s: int, now_s: int, path: str) -> None:
    """Raises Invalid for a datum of more than two weeks ago or two hours ahead, which CloudWatch refuses."""
    if not now_s - DATUM_MAX_AGE_S <= timestamp_s <= now_s + DATUM_MAX_AHEAD_S:
        why = "must lie between two weeks ago and two hours from now"
        raise Invalid(f"The parameter {path}.Timestamp {why}.", fields=[(f"{path}.Timestamp", why)])


def dimensions_of(key: str) -> dict[str, str]:
    """What `dimensions_key` was made of."""
    return {str(name): str(value) for name, value in json.loads(key).items()}


def has_dimensions(dimensions: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all `wanted` are among `dimensions`; an empty value stands for any."""
    return all(name in dimensions and value in ("", dimensions[name]) for name, value in wanted.items())
