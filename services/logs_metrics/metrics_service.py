"""MetricsService: the gRPC methods, thin."""

from hashlib import sha256
from typing import Any, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import page
from belvedere.chassis.context import Caller, caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid
from belvedere.chassis.runtime import Runtime
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1 import logs_metrics_pb2_grpc as pb_grpc
from services.logs_metrics import metrics, rules
from services.logs_metrics.metrics import NewDatum

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Metrics(pb_grpc.MetricsServiceServicer):
    """Metrics of the caller's account and region."""

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._clock = runtime.clock

    async def PutMetricData(self, request: pb.PutMetricDataRequest, context: Context) -> pb.PutMetricDataResponse:
        who = caller()
        if not 1 <= len(request.data) <= rules.MAX_DATA_PER_PUT:
            raise Invalid(
                f"{len(request.data)} metric data: 1 to {rules.MAX_DATA_PER_PUT} are taken at once.",
                fields=[("MetricData", f"1 to {rules.MAX_DATA_PER_PUT}")],
            )
        now_s = int(self._clock().timestamp())
        data = []
        for index, datum in enumerate(request.data):
            rules.check_metric(request.namespace, datum.name, datum.dimensions, f"MetricData[{index}].")
            timestamp_s = datum.timestamp.seconds if datum.HasField("timestamp") else now_s
            rules.check_time(timestamp_s, now_s, f"MetricData[{index}]")
            values = (datum.sum, datum.minimum, datum.maximum, datum.sample_count)
            rules.check_values(values, f"MetricData[{index}]")
            data.append(
                NewDatum(
                    request.namespace, datum.name, dict(datum.dimensions), timestamp_s, datum.unit or "None", *values
                )
            )
        async with self._database.session() as session, session.begin():
            await metrics.put(session, who.account, who.region, data)
        return pb.PutMetricDataResponse()

    async def ListMetrics(self, request: pb.ListMetricsRequest, context: Context) -> pb.ListMetricsResponse:
        who, wanted = caller(), dict(request.dimensions)
        filters = [request.namespace, request.name, wanted, request.active_within_seconds]
        within_s = request.active_within_seconds
        since_s = int(self._clock().timestamp()) - within_s if within_s > 0 else 0
        cursor = page.decode_token(request.next_token, "ListMetrics", filters)
        at = rules.number_in(cursor, "id") if cursor else 0
        found: list[pb.Metric] = []
        async with self._database.session(read_only=True) as session:
            while True:
                rows = await metrics.scan(
                    session, who.account, who.region, request.namespace, request.name, since_s=since_s, after_id=at
                )
                for row in rows:
                    at = row.id or at
                    dimensions = rules.dimensions_of(row.dimensions)
                    if rules.has_dimensions(dimensions, wanted):
                        found.append(pb.Metric(namespace=row.namespace, name=row.name, dimensions=dimensions))
                    if len(found) == rules.MAX_METRICS_PER_PAGE:
                        token = page.encode_token({"id": at}, "ListMetrics", filters)
                        return pb.ListMetricsResponse(metrics=found, next_token=token)
                if len(rows) < metrics.SCAN_CHUNK:
                    return pb.ListMetricsResponse(metrics=found)

    async def GetMetricStatistics(
        self, request: pb.GetMetricStatisticsRequest, context: Context
    ) -> pb.GetMetricStatisticsResponse:
        who, wanted = caller(), request.metric
        start_s, end_s, period_s = request.start.seconds, request.end.seconds, request.period_seconds
        rules.check_metric(wanted.namespace, wanted.name, wanted.dimensions)
        rules.check_period(start_s, end_s, period_s)
        key = rules.dimensions_key(wanted.dimensions)
        async with self._database.session(read_only=True) as session:
            metric = await metrics.find(session, who.account, who.region, wanted.namespace, wanted.name, key)
            if metric is None or metric.id is None:
                return pb.GetMetricStatisticsResponse()
            points = await metrics.statistics(
                session, metric.id, start_s=start_s, end_s=end_s, period_s=period_s, unit=request.unit
            )
        return pb.GetMetricStatisticsResponse(datapoints=[_datapoint(point) for point in points])

    async def GetMetricData(self, request: pb.GetMetricDataRequest, context: Context) -> pb.GetMetricDataResponse:
        who, start_s, end_s = caller(), request.start.seconds, request.end.seconds
        for index, query in enumerate(request.queries):
            path = f"MetricDataQueries[{index}]."
            rules.check_metric(query.metric.namespace, query.metric.name, query.metric.dimensions, path)
            rules.check_span(start_s, end_s, query.period_seconds)
            if query.statistic == pb.STATISTIC_UNSPECIFIED:
                raise Invalid(f"{path}Stat is needed.", fields=[(f"{path}Stat", "is needed")])
        left = rules.limit_of(request.max_datapoints, rules.MAX_DATA_PER_GET, "MaxDatapoints")
        asked = sha256(b"".join(query.SerializeToString(deterministic=True) for query in request.queries)).hexdigest()
        filters = [asked, start_s, end_s, request.ascending]
        cursor = page.decode_token(request.next_token, "GetMetricData", filters)
        first = rules.number_in(cursor, "query") if cursor else 0
        results: list[pb.MetricValues] = []
        async with self._database.session(read_only=True) as session:
            for index in range(first, len(request.queries)):
                query = request.queries[index]
                begin_s, finish_s = start_s, end_s
                if cursor and index == first and "from" in cursor:
                    place = rules.number_in(cursor, "from")
                    begin_s, finish_s = (place, end_s) if request.ascending else (start_s, place)
                points = await self._series(session, who, query, begin_s, finish_s, request.ascending, left + 1)
                points, more = page.cut(points, left)
                left -= len(points)
                results.append(_values(index, points, query.statistic, more))
                if more:
                    place = rules.next_begin(points[-1].start_s, query.period_seconds, request.ascending)
                    token = page.encode_token({"query": index, "from": place}, "GetMetricData", filters)
                    return pb.GetMetricDataResponse(results=results, next_token=token)
                if left == 0 and index + 1 < len(request.queries):
                    token = page.encode_token({"query": index + 1}, "GetMetricData", filters)
                    return pb.GetMetricDataResponse(results=results, next_token=token)
        return pb.GetMetricDataResponse(results=results)

    async def _series(
        self,
        session: AsyncSession,
        who: Caller,
        query: pb.MetricQuery,
        start_s: int,
        end_s: int,
        ascending: bool,
        most: int,
    ) -> list[metrics.Point]:
        wanted, key = query.metric, rules.dimensions_key(query.metric.dimensions)
        metric = await metrics.find(session, who.account, who.region, wanted.namespace, wanted.name, key)
        if metric is None or metric.id is None:
            return []
        return await metrics.series(
            session,
            metric.id,
            start_s=start_s,
            end_s=end_s,
            period_s=query.period_seconds,
            unit=query.unit,
            ascending=ascending,
            most=most,
        )


def _values(
    index: int, points: list[metrics.Point], statistic: pb.Statistic.ValueType, partial: bool
) -> pb.MetricValues:
    return pb.MetricValues(
        timestamps=[Timestamp(seconds=point.start_s) for point in points],
        values=[_statistic(point, statistic) for point in points],
        partial=partial,
        query=index,
    )


def _statistic(point: metrics.Point, statistic: pb.Statistic.ValueType) -> float:
    match statistic:
        case pb.STATISTIC_SAMPLE_COUNT:
            return point.sample_count
        case pb.STATISTIC_SUM:
            return point.sum
        case pb.STATISTIC_MINIMUM:
            return point.minimum
        case pb.STATISTIC_MAXIMUM:
            return point.maximum
        case _:
            return rules.average(point.sum, point.sample_count)


def _datapoint(point: metrics.Point) -> pb.Datapoint:
    return pb.Datapoint(
        timestamp=Timestamp(seconds=point.start_s),
        sum=point.sum,
        minimum=point.minimum,
        maximum=point.maximum,
        sample_count=point.sample_count,
        unit=point.unit,
    )
