"""CloudWatch behind the front door, over MetricsService, in the three protocols that clients use: awsJson1.0 (today's
boto3), smithy-rpc-v2-cbor (other SDKs) and query (older ones).

Knows logs_metrics' gRPC and nothing of how it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import grpc

from belvedere.chassis.errors import BelvedereError, Denied, Invalid, NotFound, QuotaExceeded
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1.logs_metrics_pb2_grpc import MetricsServiceStub
from services.gateway.cloudwatch.alarms import STATISTICS as ENUMS
from services.gateway.cloudwatch.alarms import AlarmOperations, alarm_arn
from services.gateway.cloudwatch.data import average_of, datum, dimensions_of, seconds, timestamp
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
            **AlarmOperations(channel).handlers(),
        },
        resource=_resource,
        invalid=_invalid,
        failure=_failure,
        context=lambda values: {"cloudwatch:namespace": values["Namespace"]} if values.get("Namespace") else {},
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
            dimensions={entry["Name"]: entry.get("Value", "") for entry in filters},
            next_token=values.get("NextToken", ""),
            active_within_seconds=3 * 3600 if "RecentlyActive" in values else 0,
        )
        answer = await self._metrics.ListMetrics(request)
        metrics = [_metric(metric) for metric in answer.metrics]
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
            entry: dict[str, Any] = {"Timestamp": seconds(point.timestamp), "Unit": point.unit or "None"}
            datapoints.append(entry | {name: STATISTICS[name](point) for name in wanted})
        return {"Label": values["MetricName"], "Datapoints": datapoints}

    async def get_metric_data(self, values: Values, call: Call) -> dict[str, Any]:
        asked = values["MetricDataQueries"]
        if len({query["Id"] for query in asked}) != len(asked):
            raise AwsError("InvalidParameterValueException", "Every Id of MetricDataQueries must be another.")
        returned = []
        for index, query in enumerate(asked):
            stat = query.get("MetricStat")
            if stat is None or "Expression" in query or stat["Stat"] not in ENUMS:
                what = f"MetricDataQueries[{index}] must have a MetricStat with one of {', '.join(ENUMS)}"
                raise AwsError("InvalidParameterValueException", f"{what}; expressions are not served here.")
            if query.get("ReturnData", True):
                returned.append((query, stat))
        request = pb.GetMetricDataRequest(
            queries=[_query(stat) for _, stat in returned],
            start=timestamp(values["StartTime"]),
            end=timestamp(values["EndTime"]),
            ascending=values.get("ScanBy") == "TimestampAscending",
            max_datapoints=values.get("MaxDatapoints", 0),
            next_token=values.get("NextToken", ""),
        )
        answer = await self._metrics.GetMetricData(request)
        results = []
        for result in answer.results:
            query, stat = returned[result.query]
            results.append(
                {
                    "Id": query["Id"],
                    "Label": query.get("Label") or stat["Metric"]["MetricName"],
                    "Timestamps": [seconds(time) for time in result.timestamps],
                    "Values": list(result.values),
                    "StatusCode": "PartialData" if result.partial else "Complete",
                }
            )
        return {"MetricDataResults": results, **({"NextToken": answer.next_token} if answer.next_token else {})}

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
                dimensions=dimensions_of(metric, "the metric"),
            ),
            period_seconds=period_s,
            unit=unit or "",
        )
        request.start.CopyFrom(timestamp(start))
        request.end.CopyFrom(timestamp(end))
        answer = await self._metrics.GetMetricStatistics(request)
        return list(answer.datapoints)


def _metric(metric: pb.Metric) -> dict[str, Any]:
    dimensions = [{"Name": name, "Value": value} for name, value in sorted(metric.dimensions.items())]
    return {"Namespace": metric.namespace, "MetricName": metric.name, "Dimensions": dimensions}


def _query(stat: Values) -> pb.MetricQuery:
    wanted = stat["Metric"]
    metric = pb.Metric(
        namespace=wanted["Namespace"], name=wanted["MetricName"], dimensions=dimensions_of(wanted, "Metric")
    )
    return pb.MetricQuery(
        metric=metric, period_seconds=stat["Period"], statistic=ENUMS[stat["Stat"]], unit=stat.get("Unit", "")
    )


def _resource(values: Values, call: Call) -> str:
    """Alarms have names; metrics do not."""
    if name := values.get("AlarmName"):
        return alarm_arn(call, name)
    named = values.get("AlarmNames") if call.operation == "DeleteAlarms" else None
    # The others are asked for one by one, in the handler.
    return alarm_arn(call, named[0]) if named else "*"


def _invalid(problems: Problems) -> AwsError:
    missing = any(text == "is required" for _, text in problems.found)
    code = "MissingRequiredParameterException" if missing else "InvalidParameterValueException"
    return AwsError(code, problems.summary())


def _failure(error: BelvedereError) -> AwsError:
    match error:
        case NotFound():
            return AwsError("ResourceNotFound", error.message, 404)
        case Invalid(fields=[("NextToken", _)]):
            return AwsError("InvalidNextToken", error.message)
        case Invalid(fields=[("StateReasonData", _)]):
            return AwsError("InvalidFormatFault", error.message)
        case Invalid():
            return AwsError("InvalidParameterValueException", error.message)
        case Denied():
            return AwsError("AccessDeniedException", error.message, 403)
        case QuotaExceeded():
            return AwsError("LimitExceededFault", error.message)
        case _:
            return AwsError("InternalServiceFault", "Metrics are not available at the moment. Try again.", 500)
