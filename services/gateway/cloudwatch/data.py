"""Metric data of the API as sums: value, values with counts, or statistics → sum, minimum, maximum, count. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.v1 import logs_metrics_pb2 as pb
from services.gateway.errors import AwsError


def datum(entry: Mapping[str, Any], place: str, now_s: float) -> pb.MetricDatum:
    """A checked MetricDatum of the API as the service takes it. Raises AwsError naming `place`."""
    if entry.get("StorageResolution", 60) not in (1, 60):
        raise _invalid(f"{place}.StorageResolution must be 1 or 60.")
    result = pb.MetricDatum(
        name=entry["MetricName"], dimensions=dimensions_of(entry, place), unit=entry.get("Unit", "None")
    )
    result.timestamp.FromMilliseconds(round(entry.get("Timestamp", now_s) * 1000))
    given = [name for name in ("Value", "StatisticValues", "Values") if name in entry]
    if len(given) != 1:
        raise _invalid(f"{place}: exactly one of Value, StatisticValues and Values is needed.")
    if given == ["Value"]:
        _set(result, [entry["Value"]], [1.0], place)
    elif given == ["Values"]:
        values = entry["Values"]
        counts = entry.get("Counts") or [1.0] * len(values)
        if not values or len(values) != len(counts):
            raise _invalid(f"{place}: Values and Counts must have the same number of entries, and at least one.")
        if min(counts) <= 0:
            raise _invalid(f"{place}.Counts: every count must be greater than 0.")
        _set(result, values, counts, place)
    else:
        statistics = entry["StatisticValues"]
        if statistics["SampleCount"] <= 0 or statistics["Minimum"] > statistics["Maximum"]:
            raise _invalid(f"{place}.StatisticValues: SampleCount must be above 0, Minimum not above Maximum.")
        result.sum, result.sample_count = statistics["Sum"], statistics["SampleCount"]
        result.minimum, result.maximum = statistics["Minimum"], statistics["Maximum"]
    return result


def dimensions_of(entry: Mapping[str, Any], place: str) -> dict[str, str]:
    """The Dimensions of an entry, by name. Raises AwsError where one stands there twice."""
    given = entry.get("Dimensions", [])
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in given}
    if len(dimensions) != len(given):
        raise _invalid(f"{place}.Dimensions: a name may stand there once only.")
    return dimensions


def _set(result: pb.MetricDatum, values: list[float], counts: list[float], place: str) -> None:
    result.sum = sum(value * count for value, count in zip(values, counts, strict=True))
    result.sample_count = sum(counts)
    result.minimum, result.maximum = min(values), max(values)
    if not (math.isfinite(result.sum) and math.isfinite(result.sample_count)):
        raise _invalid(f"{place}: the sum of the values is out of range.")


def average_of(point: pb.Datapoint) -> float:
    """0 where there are no samples."""
    return point.sum / point.sample_count if point.sample_count else 0.0


def named(words: Mapping[str, int], value: int) -> str:
    """The API's word for a value of an enum."""
    return next(word for word, number in words.items() if number == value)


def seconds(time: Timestamp) -> float:
    """Unix seconds."""
    return time.ToDatetime(tzinfo=UTC).timestamp()


def timestamp(unix_s: float) -> Timestamp:
    """To the millisecond."""
    time = Timestamp()
    time.FromMilliseconds(round(unix_s * 1000))
    return time


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterValueException", message)
