"""/api/*: JSON over the other services. Each handler runs as the caller of the session.

    GET /api/overview             {account, region, principal, devices, applications, truncated, errors}
    GET /api/devices/<id>         {device, videos, videos_error}
    GET /api/applications/<id>    {application, nodes, videos, videos_error}
    GET /api/logs/streams?device=<id>                            {streams: [{group, stream, last_event_ms}]}
    GET /api/logs?group=&stream=[&token=][&limit=]               {events, token}: the newest; with a token: what came since
    GET /api/metrics/list?device=<id>                            {metrics}: the application's own first
    GET /api/metrics?namespace=&name=&dimensions={…}&minutes=    {points, period_s}

Must not keep anything: two replicas answer alike.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere import jsontext
from belvedere.chassis.context import caller
from belvedere.chassis.errors import BelvedereError, Invalid
from belvedere.v1 import (
    deployments_pb2,
    deployments_pb2_grpc,
    logs_metrics_pb2,
    logs_metrics_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from services.console import rules
from services.console.http import websocket_origin
from services.console.settings import Settings

PAGE = 25
MAX_STREAMS = 50
MAX_GROUPS = 10
"""Log groups of one device that are looked into."""
MAX_LOG_LINES = 200
MAX_METRICS = 200
GRAPH_POINTS = 240
"""About as many as a graph has room for."""
MAX_MINUTES = 24 * 60
PERIODS_S = (1, 5, 10, 30, 60, 300, 900, 3600)
DEVICE_NAMESPACE = "PanoramaDeviceMetrics"


class Api:
    """The handlers."""

    def __init__(self, channel: grpc.aio.Channel, settings: Settings) -> None:
        self.registry = registry_pb2_grpc.RegistryServiceStub(channel)
        self.deployments = deployments_pb2_grpc.DeploymentsServiceStub(channel)
        self.logs = logs_metrics_pb2_grpc.LogsServiceStub(channel)
        self.metrics = logs_metrics_pb2_grpc.MetricsServiceStub(channel)
        self._settings = settings

    def routes(self) -> list[web.RouteDef]:
        """For the application's router."""
        return [
            web.get("/api/overview", self.overview),
            web.get("/api/devices/{id}", self.device),
            web.get("/api/applications/{id}", self.application),
            web.get("/api/logs/streams", self.log_streams),
            web.get("/api/logs", self.log_events),
            web.get("/api/metrics/list", self.metric_list),
            web.get("/api/metrics", self.metric_points),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        """Devices and applications. Where a service is away its part is empty and `errors` says so: the rest is
        shown."""
        who = caller()
        devices, applications = await asyncio.gather(
            _or_error(self._devices()), _or_error(self._applications()), return_exceptions=False
        )
        errors = {name: part[2] for name, part in (("devices", devices), ("applications", applications)) if part[2]}
        return web.json_response(
            {
                "account": who.account,
                "region": who.region,
                "principal": who.principal,
                "now_ms": int(time.time() * 1000),
                "devices": devices[0],
                "applications": applications[0],
                "truncated": devices[1] or applications[1],
                "errors": errors,
            }
        )

    async def device(self, request: web.Request) -> web.Response:
        device_id = request.match_info["id"]
        answer = await self.registry.DescribeDevice(
            registry_pb2.DescribeDeviceRequest(device_id=device_id), timeout=self._timeout
        )
        videos, _, error = await _or_error(self._videos(device_id))
        return web.json_response({"device": rules.device_detail(answer), "videos": videos, "videos_error": error})

    async def application(self, request: web.Request) -> web.Response:
        instance_id = request.match_info["id"]
        answer = await self.deployments.DescribeApplicationInstance(
            deployments_pb2.DescribeApplicationInstanceRequest(application_instance_id=instance_id),
            timeout=self._timeout,
        )
        nodes, videos = await asyncio.gather(
            self.deployments.ListApplicationInstanceNodeInstances(
                deployments_pb2.ListApplicationInstanceNodeInstancesRequest(application_instance_id=instance_id),
                timeout=self._timeout,
            ),
            _or_error(self._videos(answer.default_runtime_context_device)),
        )
        return web.json_response(
            {
                "application": rules.application_detail(answer),
                "nodes": [rules.node_line(node) for node in nodes.node_instances],
                "videos": [video for video in videos[0] if video["application_id"] == instance_id],
                "videos_error": videos[2],
            }
        )

    async def log_streams(self, request: web.Request) -> web.Response:
        prefix = f"/aws/panorama/devices/{_text(request, 'device')}"
        groups = await self.logs.DescribeLogGroups(
            logs_metrics_pb2.DescribeLogGroupsRequest(prefix=prefix, limit=MAX_GROUPS), timeout=self._timeout
        )
        answers = await asyncio.gather(
            *(
                self.logs.DescribeLogStreams(
                    logs_metrics_pb2.DescribeLogStreamsRequest(
                        group=group.name, order_by_last_event=True, descending=True, limit=MAX_STREAMS
                    ),
                    timeout=self._timeout,
                )
                for group in groups.groups
            )
        )
        streams = [
            {"group": group.name, "stream": stream.name, "last_event_ms": stream.last_event_ms or None}
            for group, answer in zip(groups.groups, answers, strict=True)
            for stream in answer.streams
        ]
        streams.sort(key=lambda stream: stream["last_event_ms"] or 0, reverse=True)
        return web.json_response({"streams": streams[:MAX_STREAMS]})

    async def log_events(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", MAX_LOG_LINES, MAX_LOG_LINES)
        answer = await self.logs.GetLogEvents(
            logs_metrics_pb2.GetLogEventsRequest(
                group=_text(request, "group"),
                stream=_text(request, "stream"),
                limit=limit,
                next_token=request.query.get("token", ""),
            ),
            timeout=self._timeout,
        )
        return web.json_response(
            {"events": [rules.log_event(event) for event in answer.events], "token": answer.next_forward_token}
        )

    async def metric_list(self, request: web.Request) -> web.Response:
        """Metrics of the account; those of appliances only where they belong to the device that is asked for."""
        device_id = request.query.get("device", "")
        answer = await self.metrics.ListMetrics(logs_metrics_pb2.ListMetricsRequest(), timeout=self._timeout)
        metrics = [
            metric
            for metric in answer.metrics
            if metric.dimensions.get("DeviceId", device_id) == device_id or not device_id
        ]
        # The application's own before the appliance's; "People" of the example first of all.
        metrics.sort(key=lambda m: (m.namespace == DEVICE_NAMESPACE, m.name != "People", m.namespace, m.name))
        return web.json_response({"metrics": [rules.metric_line(metric) for metric in metrics[:MAX_METRICS]]})

    async def metric_points(self, request: web.Request) -> web.Response:
        minutes = _number(request, "minutes", 10, MAX_MINUTES)
        period = next(period for period in PERIODS_S if minutes * 60 / period <= GRAPH_POINTS)
        end = int(time.time()) + 1
        answer = await self.metrics.GetMetricStatistics(
            logs_metrics_pb2.GetMetricStatisticsRequest(
                metric=logs_metrics_pb2.Metric(
                    namespace=_text(request, "namespace"), name=_text(request, "name"), dimensions=_dimensions(request)
                ),
                start=Timestamp(seconds=end - minutes * 60),
                end=Timestamp(seconds=end),
                period_seconds=period,
            ),
            timeout=self._timeout,
        )
        return web.json_response(
            {
                "points": rules.points(answer.datapoints),
                "period_s": period,
                "start_ms": (end - minutes * 60) * 1000,
                "end_ms": end * 1000,
            }
        )

    async def video_origins(self) -> set[str]:
        """Origins of every device's videos, for the page's security policy."""
        devices, _ = await self._devices()
        found: set[str] = set()
        answers = await asyncio.gather(*(_or_error(self._videos(device["id"])) for device in devices))
        for videos, _, _ in answers:
            found |= {origin for video in videos if (origin := websocket_origin(video["websocket_url"]))}
        return found

    @property
    def _timeout(self) -> float:
        return self._settings.peer_timeout_s

    async def _devices(self) -> tuple[list[rules.Json], bool]:
        lines: list[rules.Json] = []
        token: str | None = None
        while True:
            answer = await self.registry.ListDevices(
                registry_pb2.ListDevicesRequest(max_results=PAGE, next_token=token), timeout=self._timeout
            )
            lines += [rules.device_line(device) for device in answer.devices]
            token = answer.next_token or None
            if token is None or len(lines) >= self._settings.max_listed:
                return lines[: self._settings.max_listed], token is not None

    async def _applications(self) -> tuple[list[rules.Json], bool]:
        lines: list[rules.Json] = []
        async for answer in self._application_pages():
            shown = map(rules.application_line, answer.application_instances)
            lines += [line for line in shown if line["status"] not in rules.GONE]
            if len(lines) >= self._settings.max_listed:
                return lines[: self._settings.max_listed], bool(answer.next_token)
        return lines, False

    async def _application_pages(self) -> AsyncIterator[deployments_pb2.ListApplicationInstancesResponse]:
        token: str | None = None
        for _ in range(self._settings.max_listed // PAGE * 4):
            answer = await self.deployments.ListApplicationInstances(
                deployments_pb2.ListApplicationInstancesRequest(max_results=PAGE, next_token=token),
                timeout=self._timeout,
            )
            yield answer
            token = answer.next_token or None
            if token is None:
                return

    async def _videos(self, device_id: str) -> tuple[list[rules.Json], bool]:
        answer = await self.registry.CreateViewerCredentials(
            registry_pb2.CreateViewerCredentialsRequest(device_id=device_id), timeout=self._timeout
        )
        return [rules.video(output, answer.websocket_token) for output in answer.outputs if output.websocket_url], False


async def _or_error(work: Awaitable[tuple[list[Any], bool]]) -> tuple[list[Any], bool, str | None]:
    try:
        items, truncated = await work
    except BelvedereError as error:
        return [], False, error.message
    return items, truncated, None


def _text(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise Invalid(f"The parameter {name} is missing.", fields=[(name, "is missing")])
    return value


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= most:
        raise Invalid(f"The parameter {name} must be a number from 1 to {most}.", fields=[(name, f"1 to {most}")])
    return int(text)


def _dimensions(request: web.Request) -> dict[str, str]:
    wrong = Invalid(
        "The parameter dimensions must be a JSON object of texts.", fields=[("dimensions", "an object of texts")]
    )
    try:
        found = jsontext.loads(request.query.get("dimensions", "{}"))
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise wrong
    return found
