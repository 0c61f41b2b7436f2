"""What the appliance says of itself, as a table: statuses of its processes against the reported document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    Health,
    NodeStatus,
    Reason,
    ReasonCode,
    ReportedApplication,
    ReportedLimit,
    ReportedNetworking,
    Target,
)
from edge.agent.plan import Current
from edge.agent.report import Statuses, report
from tests.edge.agent.documents import application, digest, graph, target

A = graph()
HERE = Current(graphs={A.digest(): A}, assets=frozenset({digest("c"), digest("d")}))
CAMERA = "door-1.0-aaaaaaaa"
STREAMING = {
    "camera_id": CAMERA,
    "state": "streaming",
    "reason": None,
    "fps": 10.0,
    "width": 768,
    "height": 576,
    "codec": "h264",
}
READY = {"model_id": A.models[0].model_id, "state": "ready", "reason": None}
RUNNING = {"instance_id": "i-1", "state": "running", "reason": None, "restarts": 0, "first_output_at_ms": 5}
OUTPUT = {"instance_id": "i-1", "node": "code_node", "rtsp_url": "rtsp://a/b", "websocket_url": "ws://a/b"}


def statuses(
    camera: dict[str, Any] | None = STREAMING,
    model: dict[str, Any] | None = READY,
    app: dict[str, Any] | None = RUNNING,
    output: dict[str, Any] | None = OUTPUT,
) -> Statuses:
    return Statuses(
        {CAMERA: camera} if camera else {},
        {READY["model_id"]: model} if model else {},  # type: ignore[dict-item]
        {"i-1": app} if app else {},
        {"i-1": output} if output else {},
    )


def reported(
    said: Statuses, current: Current = HERE, failures: dict[str, Reason] | None = None, wanted: Target | None = None
) -> tuple[ReportedApplication, ...]:
    return report(
        wanted or target(application("i-1", A)),
        current,
        said,
        failures=failures or {},
        jobs=(),
        networking=ReportedNetworking(),
        reported_at_ms=1,
        software_version="0.1.0",
    ).applications


def test_an_application_that_delivers_runs_and_so_do_all_its_nodes() -> None:
    (app,) = reported(statuses())
    assert (app.state, app.health, app.reason) == (DeviceReportedStatus.RUNNING, Health.RUNNING, None)
    assert {node.name: node.status for node in app.nodes} == dict.fromkeys(
        ["front", "detector", "code_node", "screen"], NodeStatus.RUNNING
    )


def test_without_its_graph_an_application_is_being_installed() -> None:
    (app,) = reported(statuses(app=None), Current())
    assert (app.state, app.health) == (DeviceReportedStatus.INSTALL_IN_PROGRESS, Health.NOT_AVAILABLE)


def test_an_asset_that_cannot_be_fetched_is_the_reason_of_an_install_error() -> None:
    why = Reason(ReasonCode.ASSET_UNAVAILABLE, "asset could not be fetched")
    (app,) = reported(statuses(app=None), replace(HERE, assets=frozenset()), {digest("c"): why})
    assert (app.state, app.reason) == (DeviceReportedStatus.INSTALL_ERROR, why)


def test_a_camera_that_refuses_the_password_explains_why_its_application_does_not_start() -> None:
    refused = {**STREAMING, "state": "refused", "reason": "401 from the camera"}
    (app,) = reported(statuses(camera=refused, app={**RUNNING, "state": "starting"}))
    assert app.state is DeviceReportedStatus.LAUNCH_ERROR
    assert app.reason == Reason(ReasonCode.CAMERA_UNAUTHORIZED, "401 from the camera", "front")


def test_a_camera_lost_later_leaves_the_deployment_standing_and_the_health_in_error() -> None:
    lost = {**STREAMING, "state": "unreachable", "reason": {"message": "no route"}}
    (app,) = reported(statuses(camera=lost))
    assert (app.state, app.health) == (DeviceReportedStatus.RUNNING, Health.ERROR)
    assert app.reason is not None and app.reason.code is ReasonCode.CAMERA_UNREACHABLE


def test_a_model_file_that_is_no_model_is_the_reason_of_a_launch_error() -> None:
    failed = {**READY, "state": "failed", "reason": {"code": "MODEL_INVALID", "message": "not a model"}}
    (app,) = reported(statuses(model=failed, app={**RUNNING, "state": "starting"}))
    assert (app.state, app.reason) == (
        DeviceReportedStatus.LAUNCH_ERROR,
        Reason(ReasonCode.MODEL_INVALID, "model `detector`: not a model", "detector"),
    )


def test_an_application_that_dies_before_it_ever_delivered_is_a_launch_error() -> None:
    dead = {
        **RUNNING,
        "state": "failed",
        "reason": {"code": "APP_EXITED", "message": "ImportError: no module x"},
        "restarts": 3,
    }
    (app,) = reported(statuses(app=dead))
    assert (app.state, app.health, app.restarts) == (DeviceReportedStatus.LAUNCH_ERROR, Health.ERROR, 3)
    assert app.reason is not None and app.reason.message == "code `code_node`: ImportError: no module x"


def test_an_application_that_dies_after_it_delivered_keeps_its_deployment() -> None:
    dead = {**RUNNING, "state": "starting", "reason": {"code": "APP_EXITED", "message": "killed"}}
    (app,) = reported(statuses(app=dead), replace(HERE, delivered=frozenset({"i-1"})))
    assert (app.state, app.health) == (DeviceReportedStatus.RUNNING, Health.ERROR)


def test_a_removed_application_is_listed_until_it_is_gone() -> None:
    wanted = target(application("i-1", A, desired=DesiredState.REMOVED))
    assert [app.state for app in reported(statuses(), wanted=wanted)] == [DeviceReportedStatus.REMOVAL_IN_PROGRESS]
    assert reported(statuses(app=None), wanted=wanted) == ()


def test_an_application_that_the_target_forgot_is_listed_until_it_is_gone() -> None:
    assert [app.state for app in reported(statuses(), wanted=target())] == [DeviceReportedStatus.REMOVAL_IN_PROGRESS]


def test_a_replaced_application_is_on_its_way_out_while_it_still_serves() -> None:
    B = graph(code="e")
    wanted = target(application("i-1", A, desired=DesiredState.REMOVED), application("i-2", B, replaces="i-1"))
    old, new = reported(statuses(), wanted=wanted)
    assert (old.instance_id, old.state) == ("i-1", DeviceReportedStatus.REMOVAL_IN_PROGRESS)
    assert (new.instance_id, new.state) == ("i-2", DeviceReportedStatus.INSTALL_IN_PROGRESS)


def test_a_graph_of_cameras_only_runs_and_tells_about_its_cameras() -> None:
    only = replace(A, code=(), models=(), displays=(), parameters=(), edges=())
    refused = {**STREAMING, "state": "refused", "reason": {"message": "401"}}
    (app,) = reported(
        statuses(camera=refused, app=None),
        Current(graphs={only.digest(): only}),
        wanted=target(application("i-1", only)),
    )
    assert app.state is DeviceReportedStatus.RUNNING
    assert [(node.name, node.status) for node in app.nodes] == [("front", NodeStatus.ERROR)]


def test_what_went_wrong_last_stays_when_the_application_runs_again() -> None:
    why = {"code": "APP_HUNG", "message": "hung: it has asked for no frame", "node": "code_node"}
    (app,) = reported(statuses(app={**RUNNING, "restarts": 2, "last_error": why}))
    assert (app.state, app.health, app.reason) == (DeviceReportedStatus.RUNNING, Health.RUNNING, None)
    assert (app.restarts, app.last_error) == (2, Reason(ReasonCode.APP_HUNG, why["message"], "code_node"))


def test_limits_that_were_reached_are_reported_with_their_words_and_a_status_without_them_is_one_too() -> None:
    hits = {"memory_mb": 0, "cpu": 0, "pids": 2, "disk_mb": 0}
    (app,) = reported(statuses(app={**RUNNING, "limit_hits": hits, "limit_messages": {"pids": "start fewer"}}))
    assert (app.health, app.reason, app.limits) == (Health.RUNNING, None, (ReportedLimit("pids", 2, "start fewer"),))
    (app,) = reported(statuses())
    assert app.limits == ()


def test_a_replacement_that_was_given_up_says_so_and_why() -> None:
    why = Reason(ReasonCode.APP_EXITED, "exit code 1")
    (app,) = reported(statuses(app=None), replace(HERE, given_up={"i-1": why}))
    assert (app.gave_up, app.state, app.reason) == (True, DeviceReportedStatus.LAUNCH_ERROR, why)
