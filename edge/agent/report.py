"""What the appliance says it is, as a pure function of what is wanted, what is, and what the edge processes last said.

    report(target, current, statuses, …) -> Reported

A state that is not the wanted one carries the reason nearest to its cause: a camera that refuses the password explains
why the application behind it takes no frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    Health,
    NodeStatus,
    Reason,
    ReasonCode,
    Reported,
    ReportedApplication,
    ReportedCamera,
    ReportedJob,
    ReportedLimit,
    ReportedNetworking,
    ReportedNode,
    ReportedVideo,
    Target,
    TargetApplication,
)
from belvedere.graph import ResolvedGraph
from edge.agent.plan import Current

CAMERA_CODES = {
    "refused": ReasonCode.CAMERA_UNAUTHORIZED,
    "not_found": ReasonCode.CAMERA_NOT_FOUND,
    "unreachable": ReasonCode.CAMERA_UNREACHABLE,
    "stalled": ReasonCode.CAMERA_STALLED,
    "unsupported": ReasonCode.CAMERA_UNSUPPORTED,
}
CAMERA_WORKING = "streaming"


@dataclass(frozen=True)
class Statuses:
    """What each edge process said last: its rows by id."""

    cameras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    applications: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def report(
    target: Target,
    current: Current,
    statuses: Statuses,
    *,
    failures: Mapping[str, Reason],
    jobs: tuple[ReportedJob, ...],
    networking: ReportedNetworking,
    reported_at_ms: int,
    software_version: str,
) -> Reported:
    """The whole document. `failures`: digest → why its last fetch failed."""
    applications = [
        reported
        for app in target.applications
        if (reported := _application(app, current, statuses, failures)) is not None
    ]
    known = {app.instance_id for app in target.applications}
    applications += [  # not in the target any more, but still here
        ReportedApplication(instance_id, DeviceReportedStatus.REMOVAL_IN_PROGRESS)
        for instance_id in sorted(statuses.applications.keys() - known)
    ]
    return Reported(
        device_id=target.device_id,
        target_version=target.version,
        reported_at_ms=reported_at_ms,
        software_version=software_version,
        networking=networking,
        applications=tuple(applications),
        cameras=tuple(_camera(camera_id, row) for camera_id, row in sorted(statuses.cameras.items())),
        jobs=jobs,
        video=tuple(
            ReportedVideo(row["instance_id"], row["node"], row["rtsp_url"], row["websocket_url"])
            for _, row in sorted(statuses.outputs.items())
        ),
    )


def delivered(statuses: Statuses) -> frozenset[str]:
    """The instances that deliver now."""
    return frozenset(key for key, row in statuses.applications.items() if row["state"] == "running")


def _application(
    app: TargetApplication, current: Current, statuses: Statuses, failures: Mapping[str, Reason]
) -> ReportedApplication | None:
    row = statuses.applications.get(app.instance_id)
    if app.desired == DesiredState.REMOVED:
        return ReportedApplication(app.instance_id, DeviceReportedStatus.REMOVAL_IN_PROGRESS) if row else None
    if app.desired == DesiredState.STOPPED:
        state = DeviceReportedStatus.STOPPING if row else DeviceReportedStatus.STOPPED
        return ReportedApplication(app.instance_id, state)
    if given_up := current.given_up.get(app.instance_id):
        return ReportedApplication(
            app.instance_id, DeviceReportedStatus.LAUNCH_ERROR, Health.ERROR, given_up, gave_up=True
        )
    graph = current.graphs.get(app.graph_digest)
    if graph is not None and not graph.code:
        return _without_code(app, graph, statuses)
    if graph is None or row is None:
        return _installing(app, graph, current, failures)
    nodes = _nodes(app, graph, statuses)
    cause = _cause(nodes, row)
    if row["state"] == "running":
        state, health = DeviceReportedStatus.RUNNING, Health.ERROR if cause else Health.RUNNING
    elif app.instance_id in current.delivered:  # it has worked: its deployment stands, its health does not
        state, health = DeviceReportedStatus.RUNNING, Health.ERROR
    else:
        state = DeviceReportedStatus.LAUNCH_ERROR if cause else DeviceReportedStatus.STARTING
        health = Health.ERROR if cause else Health.NOT_AVAILABLE
    last_error = row.get("last_error")
    return ReportedApplication(
        app.instance_id,
        state,
        health,
        cause,
        nodes,
        row.get("first_output_at_ms"),
        int(row.get("restarts", 0)),
        Reason.from_plain(last_error, "last_error") if last_error else None,
        limits=_limits(row),
    )


def _without_code(app: TargetApplication, graph: ResolvedGraph, statuses: Statuses) -> ReportedApplication:
    """A graph of cameras only, as the camera validation tool deploys: it runs, and its nodes tell about the cameras."""
    nodes = _nodes(app, graph, statuses)
    cause = next((node.reason for node in nodes if node.reason is not None), None)
    health = Health.ERROR if cause else Health.RUNNING
    return ReportedApplication(app.instance_id, DeviceReportedStatus.RUNNING, health, cause, nodes)


def _installing(
    app: TargetApplication, graph: ResolvedGraph | None, current: Current, failures: Mapping[str, Reason]
) -> ReportedApplication:
    needed = [app.graph_digest]
    if graph is not None:
        needed += [asset.digest for asset in graph.assets]
    for digest in needed:
        if digest in failures and digest not in current.assets:
            return ReportedApplication(
                app.instance_id, DeviceReportedStatus.INSTALL_ERROR, Health.NOT_AVAILABLE, failures[digest]
            )
    return ReportedApplication(app.instance_id, DeviceReportedStatus.INSTALL_IN_PROGRESS)


def _nodes(app: TargetApplication, graph: ResolvedGraph, statuses: Statuses) -> tuple[ReportedNode, ...]:
    nodes = []
    for camera in graph.cameras:
        row = statuses.cameras.get(camera.camera_id)
        if camera.name in app.paused:
            nodes.append(ReportedNode(camera.name, NodeStatus.PAUSED))
        else:
            nodes.append(_node(camera.name, row, working=CAMERA_WORKING, codes=CAMERA_CODES))
    for model in graph.models:
        row = statuses.models.get(model.model_id)
        nodes.append(_node(model.name, row, working="ready", codes={"failed": ReasonCode.MODEL_INVALID}, place="model"))
    row = statuses.applications.get(app.instance_id)
    nodes += [
        _node(code.name, row, working="running", codes={"failed": ReasonCode.APP_EXITED}, place="code")
        for code in graph.code
    ]
    working = statuses.outputs.get(app.instance_id) is not None
    nodes += [
        ReportedNode(display.name, NodeStatus.RUNNING if working else NodeStatus.NOT_AVAILABLE)
        for display in graph.displays
    ]
    return tuple(nodes)


def _node(
    name: str, row: Mapping[str, Any] | None, *, working: str, codes: Mapping[str, ReasonCode], place: str = ""
) -> ReportedNode:
    """`place`: what the node is, for messages that come without saying which one they are about."""
    if row is None:
        return ReportedNode(name, NodeStatus.NOT_AVAILABLE)
    reason = _reason(row, codes, name)
    if reason is not None and place:
        reason = replace(reason, message=f"{place} `{name}`: {reason.message}")
    if row["state"] == working:
        return ReportedNode(name, NodeStatus.RUNNING)
    if reason is not None:
        return ReportedNode(name, NodeStatus.ERROR, reason)
    return ReportedNode(name, NodeStatus.NOT_AVAILABLE)


def _cause(nodes: tuple[ReportedNode, ...], row: Mapping[str, Any]) -> Reason | None:
    """The reason nearest to the cause: cameras and models (listed first) explain an application that has nothing to do."""
    reasons = [node.reason for node in nodes if node.reason is not None]
    return reasons[0] if reasons else _reason(row, {}, None)


def _reason(row: Mapping[str, Any], codes: Mapping[str, ReasonCode], node: str | None) -> Reason | None:
    given = row.get("reason")
    if not given:
        return None
    # A process whose states say everything gives only the sentence; one with several causes for a state names the code.
    named = given if isinstance(given, Mapping) else {"message": given}
    code = named.get("code") or codes.get(row["state"], ReasonCode.APPLIANCE_ERROR)
    return Reason(ReasonCode(code), str(named["message"]), node)


def _limits(row: Mapping[str, Any]) -> tuple[ReportedLimit, ...]:
    messages = row.get("limit_messages", {})
    return tuple(
        ReportedLimit(limit, times, str(messages.get(limit, "")))
        for limit, times in row.get("limit_hits", {}).items()
        if times
    )


def _camera(camera_id: str, row: Mapping[str, Any]) -> ReportedCamera:
    status = (
        NodeStatus.RUNNING
        if row["state"] == CAMERA_WORKING
        else NodeStatus.PAUSED
        if row["state"] == "paused"
        else NodeStatus.ERROR
        if row.get("reason")
        else NodeStatus.NOT_AVAILABLE
    )
    return ReportedCamera(
        camera_id,
        status,
        _reason(row, CAMERA_CODES, None),
        row.get("width") or None,
        row.get("height") or None,
        float(row["fps"]) if row.get("fps") is not None else None,
        row.get("codec") or None,
    )
