"""`belvedere rollout` against a real cloud side, over the owner's socket, with devices as the registry sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from belvedere.cli.account import Account
from belvedere.cli.errors import CliError
from belvedere.cli.main import main
from belvedere.cli.rollout import gate, phase
from belvedere.v1 import rollouts_pb2 as pb
from tests.support.cloud import RunningCloud
from tests.support.fleet import Device, living
from tests.support.folders import FRAMES_THROUGH, application_folder
from tests.support.front_door import Door, front_door


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    services = ["identity", "registry", "packages", "deployments", "logs_metrics", "gateway"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BELVEDERE_DEPLOYMENTS_ROLLOUT_TICK_S", "0.1")
        with front_door(tmp_path_factory.mktemp("cloud"), services) as running:
            yield running


async def make_devices(cloud: RunningCloud) -> list[Device]:
    found = []
    for name in ("one", "two"):
        device = await Device.provision(cloud, name, {"site": "yard"})
        await device.enrol()
        found.append(device)
    return found


def test_a_rollout_is_made_watched_and_listed(
    door: Door, account: Account, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def belvedere(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["rollout", *words, "--data", str(door.cloud.runtime.data)])
        told = capsys.readouterr()
        return code, "".join(line + "\n" for line in told.out.splitlines() if "[info" not in line) + told.err

    account.register_camera("front", "rtsp://10.0.0.1/front", "", "")
    app = application_folder(tmp_path / "app", "counter", FRAMES_THROUGH, cameras=["front"])
    account.register_packages(app)
    devices = door.call(make_devices)

    async def come_alive(_: RunningCloud) -> AsyncExitStack:
        stack = AsyncExitStack()
        for device in devices:
            await stack.enter_async_context(living(device))
        return stack

    stack = door.call(come_alive)
    try:
        create = ("create", str(app.root), "--tag", "site=yard", "--phase", "1", "--wait")
        code, told = belvedere(*create)
        rollout_id = told.splitlines()[0]
        assert code == 0 and rollout_id.startswith("rollout-")
        assert "SUCCEEDED phase 2 of 2" in told.splitlines()[-1]
        _, shown = belvedere("show", rollout_id)
        assert shown.splitlines()[0] == "counter: SUCCEEDED, phase 2 of 2"
        assert [line.split()[:3] for line in shown.splitlines()[-2:]] == [
            ["one", "1", "SUCCEEDED"], ["two", "2", "SUCCEEDED"],
        ]  # fmt: skip
        assert f"{rollout_id}  counter      SUCCEEDED  2 SUCCEEDED" in belvedere("list")[1]
        _, told = belvedere(
            "create", str(app.root), "--tag", "site=yard", "--phase", "1:60", "--gate", "FrameRate>=1:1"
        )
        second = told.splitlines()[0]
        belvedere("pause", second)
        belvedere("resume", second)
        belvedere("cancel", second)
        assert belvedere("cancel", second)[0] == 2
        assert belvedere("create", str(app.root), "--tag", "site=moon")[0] == 2
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), door.loop).result(60)


def test_phases_and_gates_are_read_or_refused() -> None:
    assert phase("5") == pb.RolloutPhase(count=5)
    assert phase("25%:300") == pb.RolloutPhase(percent=25, wait_seconds=300)
    assert gate("FrameRate>=5:60") == pb.RolloutGate(
        metric="FrameRate",
        statistic=pb.ROLLOUT_STATISTIC_AVERAGE,
        comparison=pb.ROLLOUT_COMPARISON_AT_LEAST,
        threshold=5,
        window_seconds=60,
    )
    assert gate("sum ApplicationErrors <= 0:120").statistic == pb.ROLLOUT_STATISTIC_SUM
    for wrong in ("5 devices", "%", "5:"):
        with pytest.raises(CliError):
            phase(wrong)
    for wrong in ("FrameRate", "FrameRate=5:60", "FrameRate>=5"):
        with pytest.raises(CliError):
            gate(wrong)
