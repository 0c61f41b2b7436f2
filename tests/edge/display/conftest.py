"""The display's own process, without its process: real sockets, real framelink, real x264, on free ports."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from belvedere.chassis.paths import EdgePaths, remove_run_dir
from belvedere.viewer import make_viewer_token, viewer_rtsp_password
from edge.display.settings import Settings
from edge.display.wanted import Wanted
from edge.display.worker import Display

KEY = bytes(range(32))
INSTANCE = "applicationInstance-aaaaaaaaaaaaaaaaaaaaaaaaaa"
CAMERA = "front-1.0-0123abcd"


@dataclass
class Shown:
    """A running display and the addresses that it gives."""

    display: Display
    paths: EdgePaths

    async def apply(self, *outputs: dict[str, Any]) -> None:
        document = {"outputs": list(outputs), "viewer_key": base64.b64encode(KEY).decode()}
        await self.display.apply(Wanted.from_json(document))

    def row(self, instance_id: str = INSTANCE) -> dict[str, Any]:
        return next(row for row in self.display.status() if row["instance_id"] == instance_id)

    def rtsp(self, instance_id: str = INSTANCE, password: str | None = None) -> str:
        secret = password or viewer_rtsp_password(KEY)
        return str(self.row(instance_id)["rtsp_url"]).replace("rtsp://", f"rtsp://viewer:{secret}@")

    def websocket(self, instance_id: str = INSTANCE, expires_in_s: float = 60, key: bytes = KEY) -> str:
        token = make_viewer_token(key, instance_id, int(time.time() + expires_in_s))
        return f"{self.row(instance_id)['websocket_url']}?token={token}"

    def snapshot(self, instance_id: str = INSTANCE) -> str:
        address = self.websocket(instance_id).replace("ws://", "http://").replace("/video/", "/snapshot/")
        return address.replace("?", ".jpg?")


def output(instance_id: str = INSTANCE, application: str = "people-counter", *cameras: str) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "application": application,
        "node": "people",
        "cameras": list(cameras or (CAMERA,)),
    }


@asynccontextmanager
async def running(data: Path, **settings: Any) -> AsyncIterator[Shown]:
    paths = EdgePaths(data)
    paths.prepare()
    chosen: dict[str, Any] = {"rtsp_port": 0, "http_port": 0, "preset": "ultrafast"} | settings
    display = Display(paths, Settings(**chosen))
    await display.start()
    try:
        yield Shown(display, paths)
    finally:
        await display.close()
        remove_run_dir(data)


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    async with running(tmp_path) as made:
        yield made
