"""Rollouts over real gRPC, NATS and SQLite, on devices that really enrolled: phases, gates, going back."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.fleet import DesiredState, DeviceReportedStatus, Health, Reason, ReasonCode, ReportedApplication
from belvedere.v1 import (
    deployments_pb2,
    deployments_pb2_grpc,
    logs_metrics_pb2,
    logs_metrics_pb2_grpc,
    rollouts_pb2_grpc,
)
from belvedere.v1 import rollouts_pb2 as pb
from tests.support import graphs
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.fleet import Device, Verdict, eventually, living
from tests.support.models import tiny_tensorflow_bytes
from tests.support.registering import Uploader

SERVICES = ["identity", "registry", "packages", "deployments", "logs_metrics"]
TAGS = {"site": "north"}
REASON = Reason(ReasonCode.APP_START_FAILED, "app.py raised at import: NameError")


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningCloud]:
    monkeypatch.setenv("BELVEDERE_DEPLOYMENTS_ROLLOUT_TICK_S", "0.1")
    async with running_cloud(tmp_path, SERVICES) as running:
        with running.caller():
            uploader = Uploader(running)
            await uploader.register(graphs.code_package(), b"code")
            await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
            for name in ("cam0", "cam1", "cam2", "cam3"):
                await uploader.camera(name, f"rtsp://10.0.0.1/{name}")
            yield running


async def fleet(cloud: RunningCloud, count: int) -> list[Device]:
    """Enrolled devices dev0, dev1 … of the site, each with a camera of its own; and one of another site."""
    found = []
    for number in range(count):
        device = await Device.provision(cloud, f"dev{number}", TAGS | {"camera": f"cam{number}"})
        await device.enrol()
        found.append(device)
    await Device.provision(cloud, "elsewhere", {"site": "south"})
    return found


@asynccontextmanager
async def alive(*devices: Device, verdict: Verdict = lambda _: None) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for device in devices:
            await stack.enter_async_context(living(device, verdict))
        yield


class Held:
    """The verdict of a device that does not bring up, while it holds, what it has not had before."""

    def __init__(self) -> None:
        self.holds = False
        self._known: set[str] = set()

    def verdict(self, instance_id: str) -> ReportedApplication | None:
        if not self.holds:
            self._known.add(instance_id)
        if instance_id in self._known:
            return None
        return ReportedApplication(instance_id, DeviceReportedStatus.STARTING)


def stub(cloud: RunningCloud) -> rollouts_pb2_grpc.RolloutServiceAsyncStub:
    return rollouts_pb2_grpc.RolloutServiceStub(cloud.channel)


def overrides() -> str:
    """The camera that the device's tag names."""
    return json.dumps(graphs.overrides("cam0")).replace("cam0", "${tag.camera}")


async def create(
    cloud: RunningCloud, *phases: pb.RolloutPhase, gates: tuple[pb.RolloutGate, ...] = (), max_failures: int = 0,
    timeout_s: int = 30, token: str = "",
) -> str:  # fmt: skip
    answer = await stub(cloud).CreateRollout(
        pb.CreateRolloutRequest(
            name="counter",
            device_tags=TAGS,
            manifest_payload=json.dumps(graphs.manifest()),
            manifest_overrides_payload=overrides(),
            phases=phases,
            gates=gates,
            max_failures=max_failures,
            deliver_timeout_seconds=timeout_s,
            client_token=token,
        )
    )
    return answer.rollout_id


async def describe(cloud: RunningCloud, rollout_id: str) -> pb.DescribeRolloutResponse:
    return await stub(cloud).DescribeRollout(pb.DescribeRolloutRequest(rollout_id=rollout_id))


async def until(cloud: RunningCloud, rollout_id: str, status: str) -> pb.DescribeRolloutResponse:
    async def reached() -> bool:
        found = (await describe(cloud, rollout_id)).rollout
        now = pb.RolloutStatus.Name(found.status).removeprefix("ROLLOUT_STATUS_")
        assert now == status or now not in ("SUCCEEDED", "FAILED", "CANCELLED"), (now, found.status_description)
        return now == status

    await eventually(reached, f"{status} of {rollout_id}")
    return await describe(cloud, rollout_id)


def statuses(found: pb.DescribeRolloutResponse) -> dict[str, str]:
    return {
        device.device_name: pb.RolloutDeviceStatus.Name(device.status).removeprefix("ROLLOUT_DEVICE_STATUS_")
        for device in found.devices
    }


async def wanted(device: Device) -> list[str]:
    """The instances that are to run."""
    return [item.instance_id for item in (await device.target()).applications if item.desired is DesiredState.RUNNING]


async def before(cloud: RunningCloud, devices: list[Device]) -> dict[str, str]:
    """An earlier version of the application on each device, by device id."""
    deployments = deployments_pb2_grpc.DeploymentsServiceStub(cloud.channel)
    found = {}
    for number, device in enumerate(devices):
        answer = await deployments.CreateApplicationInstance(
            deployments_pb2.CreateApplicationInstanceRequest(
                name="counter",
                description="the earlier one",
                default_runtime_context_device=device.device_id,
                manifest_payload=deployments_pb2.ManifestPayload(payload_data=json.dumps(graphs.manifest())),
                manifest_overrides_payload=deployments_pb2.ManifestOverridesPayload(
                    payload_data=json.dumps(graphs.overrides(f"cam{number}"))
                ),
            )
        )
        found[device.device_id] = answer.application_instance_id
    for instance_id in found.values():
        await eventually(lambda id=instance_id: _succeeded(cloud, id), "the earlier one runs")  # type: ignore[misc]
    return found


async def instance(cloud: RunningCloud, instance_id: str) -> deployments_pb2.DescribeApplicationInstanceResponse:
    deployments = deployments_pb2_grpc.DeploymentsServiceStub(cloud.channel)
    return await deployments.DescribeApplicationInstance(
        deployments_pb2.DescribeApplicationInstanceRequest(application_instance_id=instance_id)
    )


async def _succeeded(cloud: RunningCloud, instance_id: str) -> bool:
    found = (await instance(cloud, instance_id)).status
    return found == deployments_pb2.APPLICATION_INSTANCE_STATUS_DEPLOYMENT_SUCCEEDED


def gate(metric: str, threshold: float, window_s: int = 1) -> pb.RolloutGate:
    return pb.RolloutGate(
        metric=metric, comparison=pb.ROLLOUT_COMPARISON_AT_LEAST, threshold=threshold, window_seconds=window_s
    )


async def tell_figures(cloud: RunningCloud, rollout_id: str, frame_rate: dict[str, float]) -> None:
    """FrameRate of each device's instance, by device name, as soon as it is there."""
    metrics, told = logs_metrics_pb2_grpc.MetricsServiceStub(cloud.channel), set[str]()

    async def all_told() -> bool:
        for device in (await describe(cloud, rollout_id)).devices:
            name, value = device.device_name, frame_rate.get(device.device_name)
            if value is None or name in told or statuses_of(device) != "VERIFYING":
                continue
            stamp = Timestamp(seconds=int(time.time()) + 1)
            await metrics.PutMetricData(
                logs_metrics_pb2.PutMetricDataRequest(
                    namespace="PanoramaDeviceMetrics",
                    data=[
                        logs_metrics_pb2.MetricDatum(
                            name="FrameRate",
                            dimensions={
                                "ApplicationInstanceName": "counter",
                                "ApplicationInstanceId": device.application_instance_id,
                            },
                            timestamp=stamp, unit="Count/Second", sum=value, minimum=value, maximum=value,
                            sample_count=1,
                        )
                    ],
                )
            )  # fmt: skip
            told.add(name)
        return told == set(frame_rate)

    await eventually(all_told, "figures of all")


def statuses_of(device: pb.RolloutDevice) -> str:
    return pb.RolloutDeviceStatus.Name(device.status).removeprefix("ROLLOUT_DEVICE_STATUS_")


async def test_phase_by_phase_each_device_gets_the_application_with_its_own_camera(cloud: RunningCloud) -> None:
    devices = await fleet(cloud, 3)
    first = Held()
    async with alive(devices[0], verdict=first.verdict), alive(*devices[1:]):
        old = await before(cloud, devices)
        first.holds = True
        phases = (pb.RolloutPhase(count=1, wait_seconds=1), pb.RolloutPhase(percent=60))
        rollout_id = await create(cloud, *phases, token="once")
        assert await create(cloud, *phases, token="once") == rollout_id

        async def first_alone() -> bool:
            return statuses(await describe(cloud, rollout_id)) == {
                "dev0": "DEPLOYING", "dev1": "PENDING", "dev2": "PENDING",
            }  # fmt: skip

        await eventually(first_alone, "the first phase alone")
        assert await wanted(devices[1]) == [old[devices[1].device_id]]
        with pytest.raises(Conflict, match="same application"):
            await create(cloud)
        first.holds = False
        found = await until(cloud, rollout_id, "SUCCEEDED")
        assert [device.phase for device in found.devices] == [0, 1, 2]
        done = [device.last_updated_time.ToDatetime() for device in found.devices]
        assert done[1] - done[0] >= timedelta(seconds=1), "it waits after the first phase"
        assert set(statuses(found).values()) == {"SUCCEEDED"}
        for number, device in enumerate(found.devices):
            target = await devices[number].target()
            assert target.applications[-1].instance_id == device.application_instance_id
            assert target.applications[-1].camera_ids[0].startswith(f"cam{number}-")
            assert device.previous_application_instance_id == old[device.device_id]
    (listed,) = (await stub(cloud).ListRollouts(pb.ListRolloutsRequest())).rollouts
    assert (listed.rollout_id, dict(listed.devices)) == (rollout_id, {"SUCCEEDED": 3})


async def test_a_gate_that_does_not_hold_stops_the_rollout_and_all_go_back(cloud: RunningCloud) -> None:
    devices = await fleet(cloud, 4)
    async with alive(*devices):
        old = await before(cloud, devices[:3])  # on the last there was nothing
        phases = (pb.RolloutPhase(count=1), pb.RolloutPhase(count=2), pb.RolloutPhase(count=4))
        rollout_id = await create(cloud, *phases, gates=(gate("FrameRate", 10),))
        await tell_figures(cloud, rollout_id, {"dev0": 14.0, "dev1": 3.0})
        found = await until(cloud, rollout_id, "FAILED")
        assert statuses(found) == {
            "dev0": "ROLLED_BACK", "dev1": "ROLLED_BACK", "dev2": "SKIPPED", "dev3": "SKIPPED",
        }  # fmt: skip
        assert "dev1: FrameRate (average over 1 s) is 3, at least 10 is wanted" in found.rollout.status_description
        # The rest never heard of it; the others run what they ran before.
        assert await wanted(devices[2]) == [old[devices[2].device_id]]
        assert await wanted(devices[3]) == []
        for device in devices[:2]:
            (running,) = await wanted(device)
            assert (await instance(cloud, running)).description == "the earlier one"


async def test_a_device_that_fails_goes_back_alone_where_failures_are_allowed(cloud: RunningCloud) -> None:
    devices = await fleet(cloud, 2)
    good: set[str] = set()
    fails = False

    def verdict(instance_id: str) -> ReportedApplication | None:
        if not fails:
            good.add(instance_id)
        if instance_id in good:
            return None
        return ReportedApplication(instance_id, DeviceReportedStatus.LAUNCH_ERROR, Health.ERROR, REASON, gave_up=True)

    async with alive(devices[0]), alive(devices[1], verdict=verdict):
        old = await before(cloud, devices)
        fails = True
        found = await until(cloud, await create(cloud, max_failures=1), "SUCCEEDED")
        assert statuses(found) == {"dev0": "SUCCEEDED", "dev1": "ROLLED_BACK"}
        assert REASON.message in found.devices[1].description
        assert await wanted(devices[1]) == [old[devices[1].device_id]]


async def test_a_device_that_is_off_holds_nobody_up_and_gets_it_when_it_returns(cloud: RunningCloud) -> None:
    devices = await fleet(cloud, 2)
    async with alive(devices[0]):
        rollout_id = await create(cloud)
        found = await until(cloud, rollout_id, "SUCCEEDED")
        assert statuses(found) == {"dev0": "SUCCEEDED", "dev1": "OFFLINE"}
        assert "when it returns" in found.devices[1].description
    async with alive(devices[1]):
        await eventually(lambda: _succeeded(cloud, found.devices[1].application_instance_id), "it has it")


async def test_a_device_that_does_not_deliver_in_time_goes_back(cloud: RunningCloud) -> None:
    devices = await fleet(cloud, 1)
    async with alive(*devices):
        old = await before(cloud, devices)
    known = set(old.values())

    def starts(instance_id: str) -> ReportedApplication | None:
        return None if instance_id in known else ReportedApplication(instance_id, DeviceReportedStatus.STARTING)

    async with alive(*devices, verdict=starts):
        found = await until(cloud, await create(cloud, timeout_s=1), "FAILED")
        assert statuses(found) == {"dev0": "ROLLED_BACK"}
        assert "did not deliver within 1 s" in found.devices[0].description
        assert await wanted(devices[0]) == list(known)


async def test_a_rollout_is_paused_resumed_and_cancelled(cloud: RunningCloud) -> None:
    devices = await fleet(cloud, 2)
    async with alive(*devices):
        rollout_id = await create(cloud, pb.RolloutPhase(count=1, wait_seconds=60))
        await stub(cloud).PauseRollout(pb.PauseRolloutRequest(rollout_id=rollout_id))
        with pytest.raises(Conflict, match="PAUSED"):
            await stub(cloud).PauseRollout(pb.PauseRolloutRequest(rollout_id=rollout_id))
        await stub(cloud).ResumeRollout(pb.ResumeRolloutRequest(rollout_id=rollout_id))
        await eventually(lambda: _is(cloud, rollout_id, "dev0", "SUCCEEDED"), "the first has it")
        await stub(cloud).CancelRollout(pb.CancelRolloutRequest(rollout_id=rollout_id))
        found = await until(cloud, rollout_id, "CANCELLED")
        assert statuses(found)["dev0"] == "ROLLED_BACK"
        assert await wanted(devices[0]) == []  # it had nothing before
        kept = await create(cloud, pb.RolloutPhase(count=1, wait_seconds=60))
        await eventually(lambda: _is(cloud, kept, "dev0", "SUCCEEDED"), "the first has it")
        await stub(cloud).CancelRollout(pb.CancelRolloutRequest(rollout_id=kept, keep=True))
        assert statuses(await until(cloud, kept, "CANCELLED")) == {"dev0": "SUCCEEDED", "dev1": "SKIPPED"}
        assert len(await wanted(devices[0])) == 1


async def _is(cloud: RunningCloud, rollout_id: str, device: str, status: str) -> bool:
    return statuses(await describe(cloud, rollout_id))[device] == status


async def test_a_rollout_goes_on_after_a_restart_of_the_cloud_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_DEPLOYMENTS_ROLLOUT_TICK_S", "0.1")
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            uploader = Uploader(cloud)
            await uploader.register(graphs.code_package(), b"code")
            await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
            for name in ("cam0", "cam1"):
                await uploader.camera(name, f"rtsp://10.0.0.1/{name}")
            devices = await fleet(cloud, 2)
            first = Held()
            first.holds = True
            async with alive(devices[0], verdict=first.verdict):
                rollout_id = await create(cloud, pb.RolloutPhase(count=1))
                await eventually(lambda: _is(cloud, rollout_id, "dev0", "DEPLOYING"), "the first gets it")
    async with running_cloud(tmp_path, SERVICES) as again:
        with again.caller():
            for device in devices:
                device.cloud = again
            # Whose turn comes next has to be there when the first one is done.
            async with alive(*reversed(devices)):
                assert set(statuses(await until(again, rollout_id, "SUCCEEDED")).values()) == {"SUCCEEDED"}


async def test_what_can_not_be_is_refused_before_anything_begins(cloud: RunningCloud) -> None:
    devices = await fleet(cloud, 1)
    good: dict[str, Any] = {
        "name": "counter",
        "device_tags": TAGS,
        "manifest_payload": json.dumps(graphs.manifest()),
        "manifest_overrides_payload": overrides(),
    }
    cases: list[tuple[dict[str, Any], str]] = [
        ({"device_tags": {"site": "absent"}}, "no device has site=absent"),
        ({"device_tags": {}}, "which devices"),
        ({"name": ""}, "name is missing"),
        ({"manifest_overrides_payload": "${tag.absent}"}, "dev0 has no tag.absent"),
        ({"manifest_overrides_payload": overrides().replace("1.0", "9.0")}, "No registered package version"),
        ({"device_overrides": {"device-other": "{}"}}, "device-other is not among the devices"),
        ({"phases": [pb.RolloutPhase(percent=101)]}, "1 to 100 percent"),
        ({"gates": [gate("Beauty", 1)]}, "is one of FrameRate"),
        ({"gates": [pb.RolloutGate(metric="FrameRate", window_seconds=5)]}, "AT_LEAST or AT_MOST"),
        ({"max_failures": -1}, "0 or more"),
    ]
    for changes, message in cases:
        with pytest.raises(Invalid, match=message):
            await stub(cloud).CreateRollout(pb.CreateRolloutRequest(**(good | changes)))
    with pytest.raises(NotFound):
        await describe(cloud, "rollout-absent")
    assert not (await stub(cloud).ListRollouts(pb.ListRolloutsRequest())).rollouts
    assert await wanted(devices[0]) == []
