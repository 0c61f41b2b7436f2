"""Targets and reports: JSON there and back, what is tolerated, what errors say, and how targets change."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    DocumentError,
    Health,
    JobKind,
    JobProgress,
    NetworkConnection,
    NodeStatus,
    Reason,
    ReasonCode,
    Reported,
    ReportedApplication,
    ReportedCamera,
    ReportedInterface,
    ReportedJob,
    ReportedLimit,
    ReportedNetworking,
    ReportedNode,
    ReportedVideo,
    Target,
    TargetApplication,
    TargetCamera,
    TargetJob,
    changing,
    with_application,
    with_camera,
    with_desired,
    with_job,
    with_paused,
    without_application,
    without_job,
)

NORTH = TargetCamera("north-1.0-aaaaaaaa", "rtsp://10.0.0.1/s", "c2VhbGVk")
SOUTH = TargetCamera("south-1.0-bbbbbbbb", "rtsp://10.0.0.2/s")
COUNTER = TargetApplication("applicationInstance-1", "counter", "sha256:" + "0" * 64, camera_ids=(NORTH.camera_id,))
SECOND = TargetApplication(
    "applicationInstance-2", "counter", "sha256:" + "1" * 64, replaces="applicationInstance-1",
    camera_ids=(NORTH.camera_id, SOUTH.camera_id),
)  # fmt: skip
EMPTY = Target("device-1")

REPORT = Reported(
    device_id="device-1",
    target_version=7,
    reported_at_ms=1_790_000_000_000,
    software_version="0.1.0",
    networking=ReportedNetworking(ethernet0=ReportedInterface(NetworkConnection.CONNECTED, "10.0.0.9/24", "00:11")),
    applications=(
        ReportedApplication(
            "applicationInstance-1",
            DeviceReportedStatus.RUNNING,
            Health.ERROR,
            Reason(ReasonCode.CAMERA_UNAUTHORIZED, "camera `north`: 401", node="north"),
            (ReportedNode("north", NodeStatus.ERROR, Reason(ReasonCode.CAMERA_UNAUTHORIZED, "401")),),
            first_output_at_ms=1_790_000_000_001,
            restarts=2,
            limits=(ReportedLimit("cpu", 3, "raise cpu"),),
        ),
    ),
    cameras=(ReportedCamera(NORTH.camera_id, NodeStatus.RUNNING, None, 768, 576, 10.0, "h264"),),
    jobs=(ReportedJob("device-1-0", JobProgress.COMPLETED),),
    video=(ReportedVideo("applicationInstance-1", "hdmi", "rtsp://a", "ws://a"),),
)


def test_a_target_comes_back_from_its_json() -> None:
    target = with_job(with_application(EMPTY, COUNTER, [NORTH]), TargetJob("device-1-0", JobKind.OTA, "0.2.0"))
    assert Target.from_json(target.to_json()) == target
    assert json.loads(target.to_json())["schema"] == 1


def test_a_report_comes_back_from_its_json() -> None:
    assert Reported.from_json(REPORT.to_json()) == REPORT


def test_a_report_of_an_older_appliance_names_no_limits() -> None:
    document = json.loads(REPORT.to_json())
    del document["applications"][0]["limits"]
    assert Reported.from_json(json.dumps(document)).applications[0].limits == ()


def test_equal_documents_have_equal_bytes() -> None:
    shuffled = dict(reversed(list(REPORT.to_plain().items())))
    assert Reported.from_plain(shuffled).to_json() == REPORT.to_json()


def test_unknown_fields_are_ignored_and_missing_ones_get_their_default() -> None:
    document = {"schema": 2, "device_id": "device-1", "brightness": 3, "applications": []}
    assert Target.from_json(json.dumps(document)) == EMPTY


def test_a_reason_of_a_newer_appliance_is_an_appliance_error_with_its_message() -> None:
    reason = Reason.from_plain({"code": "COFFEE_EMPTY", "message": "fill up"})
    assert reason == Reason(ReasonCode.APPLIANCE_ERROR, "fill up")


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        ({"device_id": None}, "device_id", "must be text, not null"),
        ({"version": "1"}, "version", "must be a whole number, not text"),
        ({"version": True}, "version", "must be a whole number, not true or false"),
        ({"applications": {}}, "applications", "must be a list, not an object"),
        ({"applications": [COUNTER.to_plain(), {"name": "x"}]}, "applications[1].instance_id", "is missing"),
        (
            {"applications": [{**COUNTER.to_plain(), "desired": "SLEEPING"}]},
            "applications[0].desired",
            "must be one of RUNNING, STOPPED, REMOVED, not 'SLEEPING'",
        ),
    ],
)
def test_an_unreadable_target_names_the_place(change: dict[str, object], place: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        Target.from_plain({**EMPTY.to_plain(), **change})
    assert (caught.value.place, caught.value.problem) == (place, problem)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null", "[" * 100_000, '{"device_id": "\\ud800"', "9" * 5000])
def test_text_that_is_no_document_gives_a_typed_error(text: str) -> None:
    with pytest.raises(DocumentError):
        Target.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["device_id", "version", "applications", "cameras", "x"]), inner, max_size=5)
    ),
)


@given(JSON)
def test_no_input_crashes_the_reader(value: object) -> None:
    for document in (Target, Reported):
        try:
            document.from_plain(value)
        except DocumentError as error:
            assert str(error)


def test_a_change_raises_the_version_and_no_change_does_not() -> None:
    target = with_application(EMPTY, COUNTER, [NORTH])
    assert target.version == 1
    assert with_application(target, COUNTER, [NORTH]) is target
    assert with_desired(target, "applicationInstance-9", DesiredState.STOPPED) is target
    assert without_application(target, "applicationInstance-9") is target
    assert without_job(target, "x") is target


def test_a_replacement_asks_for_the_removal_of_the_old_one_and_keeps_it_listed() -> None:
    target = with_application(with_application(EMPTY, COUNTER, [NORTH]), SECOND, [NORTH, SOUTH])
    assert [(item.instance_id, item.desired) for item in target.applications] == [
        ("applicationInstance-1", DesiredState.REMOVED),
        ("applicationInstance-2", DesiredState.RUNNING),
    ]
    assert set(target.cameras) == {NORTH, SOUTH}


def test_a_camera_leaves_with_the_last_application_that_needs_it() -> None:
    target = with_application(with_application(EMPTY, COUNTER, [NORTH]), SECOND, [NORTH, SOUTH])
    without_second = without_application(target, "applicationInstance-2")
    assert without_second.cameras == (NORTH,)
    assert without_application(without_second, "applicationInstance-1").cameras == ()


def test_newly_sealed_credentials_take_the_place_of_the_old() -> None:
    target = with_application(EMPTY, COUNTER, [NORTH])
    fresh = TargetCamera(NORTH.camera_id, NORTH.stream_url, "bmV3")
    assert with_application(target, SECOND, [fresh]).camera(NORTH.camera_id) == fresh


def test_cameras_are_paused_and_resumed_by_node_name() -> None:
    target = with_application(EMPTY, COUNTER, [NORTH])
    paused = with_paused(target, "applicationInstance-1", pause=["north", "gate"])
    assert paused.applications[0].paused == ("gate", "north")
    resumed = with_paused(paused, "applicationInstance-1", resume=["north"])
    assert resumed.applications[0].paused == ("gate",)
    assert with_paused(resumed, "applicationInstance-1", resume=["north"]) is resumed


def test_jobs_come_and_go() -> None:
    job = TargetJob("device-1-0", JobKind.REBOOT)
    target = with_job(EMPTY, job)
    assert target.job("device-1-0") == job
    assert without_job(target, "device-1-0").jobs == ()


def test_new_credentials_reach_only_a_camera_that_is_there() -> None:
    target = with_application(EMPTY, COUNTER, [NORTH])
    fresh = TargetCamera(NORTH.camera_id, NORTH.stream_url, "bmV3")
    assert with_camera(target, fresh).camera(NORTH.camera_id) == fresh
    assert with_camera(target, SOUTH) is target


def test_a_change_of_a_stored_document_writes_nothing_where_nothing_changes() -> None:
    add = changing("device-1", lambda target: with_application(target, COUNTER, [NORTH]))
    written = add(None)
    assert written is not None
    assert Target.from_json(written).version == 1
    assert add(written) is None
