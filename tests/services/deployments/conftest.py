"""A cloud with the packages of a small application, and a device that really enrolled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import graphs
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.deploying import SERVICES
from tests.support.fleet import Device
from tests.support.models import tiny_tensorflow_bytes
from tests.support.registering import Uploader


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, SERVICES) as running:
        with running.caller():
            uploader = Uploader(running)
            await uploader.register(graphs.code_package(), b"code")
            await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
            await uploader.camera("north", "rtsp://10.0.0.1/n", "u", "pass-canary")
            await uploader.camera("south", "rtsp://10.0.0.2/s")
            yield running


@pytest.fixture
async def device(cloud: RunningCloud) -> Device:
    found = await Device.provision(cloud, "yard")
    await found.enrol()
    return found
