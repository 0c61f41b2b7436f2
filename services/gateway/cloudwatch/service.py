"""CloudWatch behind the front door, over MetricsService, in the three protocols that clients use: awsJson1.0 (today's
boto3), smithy-rpc-v2-cbor (other SDKs) and query (older ones).

Knows logs_metrics' gRPC and nothing of how it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.chassis.errors import BelvedereError, Denied, Invalid, NotFound, QuotaExceeded
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1.logs_metrics_pb2_grpc import MetricsServiceStub
from services.gateway.cloudwatch.data import average_of, datum
from services.gateway.codecs import CborCodec, JsonCodec, QueryCodec
from services.gateway.errors import AwsError
from services.gateway.message import Call
from services.gateway.model_service import ModelService, Values, load_model
from services.gateway.validation import Problems

QUERIES_MAX_POINTS = 100_800
STATISTICS: Mapping[str, Callable[[pb.Datapoint], float]] = {
    "SampleCount": lambda point: point.sample_count,
    "Average": average_of,
    "Sum": lambda point: point.sum,
    "Minimum": lambda point: point.minimum,
    "Maximum": lambda point: point.maximum,
}


def create(channel: grpc.aio.Channel, clock: Callable[[], datetime]) -> ModelService:
    """CloudWatch over logs_metrics."""
    model = load_model("cloudwatch")
    target = model.metadata["targetPrefix"]
    operations = _Operations(channel, clock)
    return ModelService(
        model=model,
        codecs=[
            CborCodec(target),
            JsonCodec(target, model.metadata["jsonVersion"]),
            QueryCodec(model.metadata["xmlNamespace"]),
        ],
        prefix="cloudwatch",
        handlers={
            "PutMetricData": operations.put_metric_data,
            "ListMetrics": operations.list_metrics,
            "GetMetricStatistics": operations.get_metric_statistics,
            "GetMetricData": operations.get_metric_data,
        },
        resource=lambda values, call: "*",
        invalid=_invalid,
        failure=_failure,
    )


class _Operations:
    def __init__(self, channel: grpc.aio.Channel, clock: Callable[[], datetime]) -> None:
        self._metrics = MetricsServiceStub(channel)
        self._clock = clock

    async def put_metric_data(self, values: Values, call: Call) -> dict[str, Any]:
        now = self._clock().timestamp()
        data = [datum(entry, f"MetricData[{index}]", now) for index, entry in enumerate(values["MetricData"])]
        await self._metrics.PutMetricData(pb.PutMetricDataRequest(namespace=values["Namespace"], data=data))
        return {}

    async def list_metrics(self, values: Values, call: Call) -> dict[str, Any]:
        filters = values.get("Dimensions", [])
        request = pb.ListMetricsRequest(
            namespace=values.get("Namespace", ""),
            name=values.get("MetricName", ""),
            dimensions={entry["Name"]: entry["Value"] for entry in filters if "Value" in entry},
            next_token=values.get("NextToken", ""),
        )
        answer = await self._metrics.ListMetrics(request)
        # A filter without a value asks for the dimension's presence; the service knows values only.
        names = {entry["Name"] for entry in filters}
        metrics = [_metric(metric) for metric in answer.metrics if names <= set(metric.dimensions)]
        return {"Metrics": metrics, **({"NextToken": answer.next_token} if answer.next_token else {})}

    async def get_metric_statistics(self, values: Values, call: Call) -> dict[str, Any]:
        if values.get("ExtendedStatistics"):
            raise AwsError("InvalidParameterValueException", "ExtendedStatistics are not served here: use Statistics.")
        wanted = values.get("Statistics")
        if not wanted:
            raise AwsError("MissingRequiredParameterException", "The parameter Statistics is required.")
        points = await self._points(
            values, values["StartTime"], values["EndTime"], values["Period"], values.get("Unit")
        )
        datapoints = []
        for point in points:
            entry: dict[str, Any] = {"Timestamp": _seconds(point.timestamp), "Unit": point.unit or "None"}
            datapoints.append(entry | {name: STATISTICS[name](point) for name in wanted})
        return {"Label": values["MetricName"], "Datapoints": datapoints}

    async def get_metric_data(self, values: Values, call: Call) -> dict[str, Any]:
        results = []
        for index, query in enumerate(values["MetricDataQueries"]):
            stat = query.get("MetricStat")
            if stat is None or stat["Stat"] not in STATISTICS:
                what = f"MetricDataQueries[{index}] must have a MetricStat with one of {', '.join(STATISTICS)}"
                raise AwsError("InvalidParameterValueException", f"{what}; expressions are not served here.")
            if not query.get("ReturnData", True):
                continue
            points = await self._points(
                stat["Metric"], values["StartTime"], values["EndTime"], stat["Period"], stat.get("Unit")
            )
            points.sort(key=lambda p: _seconds(p.timestamp), reverse=values.get("ScanBy") != "TimestampAscending")
            results.append(
                {
                    "Id": query["Id"],
                    "Label": query.get("Label") or stat["Metric"]["MetricName"],
                    "Timestamps": [_seconds(point.timestamp) for point in points],
                    "Values": [STATISTICS[stat["Stat"]](point) for point in points],
                    "StatusCode": "Complete",
                }
            )
        return {"MetricDataResults": results}

    async def _points(
        self, metric: Values, start: float, end: float, period_s: int, unit: str | None
    ) -> list[pb.Datapoint]:
        if start >= end:
            raise AwsError("InvalidParameterValueException", "The parameter StartTime must be less than EndTime.")
        if (end - start) / period_s > QUERIES_MAX_POINTS:
            raise AwsError("InvalidParameterValueException", f"Ask for at most {QUERIES_MAX_POINTS} datapoints.")
        request = pb.GetMetricStatisticsRequest(
            metric=pb.Metric(
                namespace=metric["Namespace"],
                name=metric["MetricName"],
                dimensions={entry["Name"]: entry["Value"] for entry in metric.get("Dimensions", [])},
            ),
            period_seconds=period_s,
            unit=unit or "",
        )
        request.start.CopyFrom(_timestamp(start))
        request.end.CopyFrom(_timestamp(end))
        answer = await self._metrics.GetMetricStatistics(request)
        return list(answer.datapoints)


def _metric(metric: pb.Metric) -> dict[str, Any]:
    dimensions = [{"Name": name, "Value": value} for name, value in sorted(metric.dimensions.items())]
    return {"Namespace": metric.namespace, "MetricName": metric.name, "Dimensions": dimensions}


def _seconds(time: Timestamp) -> float:
    return time.ToDatetime(tzinfo=UTC).timestamp()


def _timestamp(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMilliseconds(round(seconds * 1000))
    return time


def _invalid(problems: Problems) -> AwsError:
    missing = any(text == "is required" for _, text in problems.found)
    code = "MissingRequiredParameterException" if missing else "InvalidParameterValueException"
    return AwsError(code, problems.summary())


def _failure(error: BelvedereError) -> AwsError:
    match error:
        case NotFound():
            return AwsError("ResourceNotFoundException", error.message, 404)
        case Invalid():
            return AwsError("InvalidParameterValueException", error.message)
        case Denied():
            return AwsError("AccessDeniedException", error.message, 403)
        case QuotaExceeded():
            return AwsError("LimitExceededFault", error.message)
        case _:
            return AwsError("InternalServiceFault", "Metrics are not available at the moment. Try again.", 500)
