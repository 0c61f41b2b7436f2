"""A running cloud with a console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.cloud import running_cloud
from tests.support.console import SERVICES, Console


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of a bare address
    async with (
        running_cloud(tmp_path / "cloud", SERVICES) as cloud,
        aiohttp.ClientSession(cookie_jar=jar) as http,
    ):
        with cloud.caller():
            yield Console(cloud, http)
