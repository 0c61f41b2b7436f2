"""The life of an instance, as a table; documents' problems as errors; which cameras a signal means."""

import json

import pytest

from belvedere.chassis.errors import Invalid
from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    Health,
    NodeStatus,
    Reason,
    ReasonCode,
    Reported,
    ReportedApplication,
    ReportedLimit,
    ReportedNode,
)
from belvedere.graph import Problem, parse_application, resolve
from services.deployments import rules
from services.deployments.rules import State, Status
from tests.support import graphs

ID = "applicationInstance-1"
S, D = Status, DeviceReportedStatus
UNAUTHORIZED = Reason(ReasonCode.CAMERA_UNAUTHORIZED, "camera `north`: 401 from the camera", node="north")
EXITED = Reason(ReasonCode.APP_EXITED, "the application ended with code 1")


def report(
    state: DeviceReportedStatus | None, version: int = 5, reason: Reason | None = None, health: Health = Health.RUNNING
) -> Reported:
    applications = () if state is None else (ReportedApplication(ID, state, health, reason),)
    return Reported("device-1", version, 1_790_000_000_000, "0.1.0", applications=applications)


def running(status: Status, description: str = "", version: int | None = 5) -> State:
    return State(DesiredState.RUNNING, status, description, target_version=version)


def removing(status: Status, version: int | None = 6) -> State:
    return State(DesiredState.REMOVED, status, target_version=version)


TABLE: list[tuple[str, State, Reported, Status, str]] = [
    ("nothing heard", running(S.DEPLOYMENT_REQUESTED), report(None), S.DEPLOYMENT_REQUESTED, ""),
    ("installs", running(S.DEPLOYMENT_REQUESTED), report(D.INSTALL_IN_PROGRESS), S.DEPLOYMENT_IN_PROGRESS, ""),
    ("starts", running(S.DEPLOYMENT_IN_PROGRESS), report(D.STARTING), S.DEPLOYMENT_IN_PROGRESS, ""),
    ("a quick device", running(S.DEPLOYMENT_PENDING, version=None), report(D.STARTING), S.DEPLOYMENT_IN_PROGRESS, ""),
    ("runs", running(S.DEPLOYMENT_IN_PROGRESS), report(D.RUNNING), S.DEPLOYMENT_SUCCEEDED, rules.DEPLOYED),
    ("waits for its camera", running(S.DEPLOYMENT_REQUESTED), report(D.STARTING, reason=UNAUTHORIZED),
     S.DEPLOYMENT_IN_PROGRESS, UNAUTHORIZED.message),
    ("runs with a reason", running(S.DEPLOYMENT_SUCCEEDED), report(D.RUNNING, reason=UNAUTHORIZED),
     S.DEPLOYMENT_SUCCEEDED, UNAUTHORIZED.message),
    ("does not install", running(S.DEPLOYMENT_IN_PROGRESS), report(D.INSTALL_ERROR, reason=EXITED), S.DEPLOYMENT_ERROR,
     EXITED.message),
    ("does not start", running(S.DEPLOYMENT_IN_PROGRESS), report(D.LAUNCH_ERROR, reason=EXITED), S.DEPLOYMENT_ERROR,
     EXITED.message),
    ("is tried again", running(S.DEPLOYMENT_ERROR, EXITED.message), report(D.STARTING), S.DEPLOYMENT_ERROR,
     EXITED.message),
    ("recovers", running(S.DEPLOYMENT_ERROR, EXITED.message), report(D.RUNNING), S.DEPLOYMENT_SUCCEEDED, rules.DEPLOYED),
    ("starts again later", running(S.DEPLOYMENT_SUCCEEDED, rules.DEPLOYED), report(D.STARTING), S.DEPLOYMENT_SUCCEEDED,
     rules.DEPLOYED),
    ("fails later", running(S.DEPLOYMENT_SUCCEEDED, rules.DEPLOYED), report(D.LAUNCH_ERROR, reason=EXITED),
     S.DEPLOYMENT_ERROR, EXITED.message),
    ("is not told of its removal", removing(S.REMOVAL_PENDING, None), report(None, 9), S.REMOVAL_PENDING, ""),
    ("an older report", removing(S.REMOVAL_REQUESTED), report(None, 5), S.REMOVAL_REQUESTED, ""),
    ("runs on until replaced", removing(S.REMOVAL_REQUESTED), report(D.RUNNING, 6), S.REMOVAL_REQUESTED, ""),
    ("stops", removing(S.REMOVAL_REQUESTED), report(D.STOPPING, 6), S.REMOVAL_IN_PROGRESS, ""),
    ("is removed", removing(S.REMOVAL_IN_PROGRESS), report(None, 6), S.REMOVAL_SUCCEEDED, rules.REMOVED),
    ("can not be removed", removing(S.REMOVAL_IN_PROGRESS), report(D.REMOVAL_FAILED, 6, EXITED), S.REMOVAL_FAILED,
     EXITED.message),
    ("is gone", removing(S.REMOVAL_SUCCEEDED), report(D.RUNNING, 9), S.REMOVAL_SUCCEEDED, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "reported", "status", "description"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_a_report_moves_an_instance_on(state: State, reported: Reported, status: Status, description: str) -> None:
    after = rules.next_state(ID, state, reported)
    assert (after.status, after.description) == (status, description)
    assert rules.next_state(ID, after, reported) == after, "the same report again changes nothing"


def test_health_is_the_devices_word() -> None:
    after = rules.next_state(ID, running(S.DEPLOYMENT_SUCCEEDED), report(D.RUNNING, health=Health.ERROR))
    assert (after.health, after.device_state) == (Health.ERROR, D.RUNNING)


PIDS = ReportedLimit("pids", 2, "it is not given more than 64 processes")
MEMORY = ReportedLimit("memory_mb", 1, "used 300 MB of its 256 MB")


@pytest.mark.parametrize(
    ("application", "says"),
    [
        (
            ReportedApplication(ID, D.RUNNING, Health.RUNNING, limits=(PIDS,)),
            f"{rules.DEPLOYED} Limits reached: pids 2 times ({PIDS.message}).",
        ),
        (
            ReportedApplication(
                ID, D.RUNNING, Health.RUNNING, restarts=1, limits=(MEMORY,),
                last_error=Reason(ReasonCode.APP_OUT_OF_MEMORY, MEMORY.message),
            ),
            f"{rules.DEPLOYED} Limits reached: memory_mb once. Restarted once; the last time: {MEMORY.message}",
        ),
        (
            ReportedApplication(ID, D.LAUNCH_ERROR, Health.ERROR, EXITED, limits=(PIDS,)),
            f"{EXITED.message}; Limits reached: pids 2 times ({PIDS.message}).",
        ),
        (
            ReportedApplication(
                ID, D.LAUNCH_ERROR, Health.ERROR, Reason(ReasonCode.APP_OUT_OF_MEMORY, MEMORY.message), limits=(MEMORY,)
            ),
            MEMORY.message,
        ),
    ],
    ids=["leaves it running", "ended it, it runs again", "beside another reason", "the reason says it"],
)  # fmt: skip
def test_limits_that_were_reached_are_described_once(application: ReportedApplication, says: str) -> None:
    reported = Reported("device-1", 5, 1_790_000_000_000, "0.1.0", applications=(application,))
    assert rules.next_state(ID, running(S.DEPLOYMENT_SUCCEEDED), reported).description == says


def test_nodes_reasons_stand_in_for_the_applications() -> None:
    nodes = (
        ReportedNode("north", NodeStatus.ERROR, UNAUTHORIZED),
        ReportedNode("code", NodeStatus.RUNNING),
        ReportedNode("south", NodeStatus.ERROR, Reason(ReasonCode.CAMERA_STALLED, "x" * 400)),
    )
    text = rules.reason_text(ReportedApplication(ID, D.STARTING, Health.ERROR, None, nodes))
    assert text.startswith(UNAUTHORIZED.message + "; xxx")
    assert len(text) == 255


def test_every_problem_of_the_documents_reaches_the_fields() -> None:
    error = rules.invalid_documents([Problem("nodes[2].interface", "no package"), Problem("", "is not JSON")])
    assert error.message == "nodes[2].interface: no package (and 1 more, see fields)"
    assert error.fields == (
        ("nodes[2].interface", "no package"),
        ("ManifestPayload.PayloadData", "is not JSON"),
    )


def test_a_request_is_told_everything_that_is_wrong() -> None:
    with pytest.raises(Invalid) as caught:
        rules.check_request("two words", "arn:aws:iam::999999999999:role/x", "", "y" * 60_000, "123456789012")
    assert [path for path, _ in caught.value.fields] == [
        "Name",
        "RuntimeRoleArn",
        "ManifestPayload",
        "ManifestOverridesPayload",
    ]


def test_cameras_are_signalled_by_node_or_by_package() -> None:
    documents = parse_application(json.dumps(graphs.manifest()), json.dumps(graphs.overrides("gate-north", "south")))
    graph = resolve(*documents, graphs.releases("gate-north", "south"), graphs.ACCOUNT)
    assert rules.signalled_cameras(graph, [("gate-north", True), ("south", False)]) == ({"gate_north"}, {"south"})
    assert rules.signalled_cameras(graph, [("south", True), ("south", False)]) == (set(), {"south"})
    with pytest.raises(Invalid) as caught:
        rules.signalled_cameras(graph, [("code_node", True), ("nobody", True)])
    assert [text for _, text in caught.value.fields] == [
        '"code_node" is no camera: only cameras can be paused',
        '"nobody" is no node of this application',
    ]


def test_cameras_that_wait_for_a_signal_are_paused_at_first() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north", "south")
    overrides["nodeGraphOverrides"]["nodes"][1]["launch"] = "onSignal"
    parsed_manifest, parsed_overrides = parse_application(json.dumps(manifest), json.dumps(overrides))
    graph = resolve(parsed_manifest, parsed_overrides, graphs.releases("north", "south"), graphs.ACCOUNT)
    assert rules.paused_at_first(graph) == ["south"]
