"""The registry in an embedded cloud, with short silences."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from tests.support.cloud import RunningCloud, running_cloud


@pytest_asyncio.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningCloud]:
    monkeypatch.setenv("BELVEDERE_REGISTRY_HEARTBEAT_SILENCE_S", "1.5")
    async with running_cloud(tmp_path / "cloud", services=["registry"]) as running:
        with running.caller():
            yield running


@pytest.fixture
def registry(cloud: RunningCloud) -> RegistryServiceStub:
    return RegistryServiceStub(cloud.channel)
