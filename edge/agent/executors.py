"""What the plan's steps do: the I/O. One function a step; each tells one edge process its whole wanted set."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from belvedere.chassis.paths import EdgePaths
from belvedere.fleet import sealing
from edge.agent.assets import AssetStore
from edge.agent.device import DeviceConfig, DeviceKeys
from edge.agent.plan import WantedApplication, WantedCamera, WantedModel, WantedOutput

SETTLE_S = 3.0
"""After a process was told its wanted set, its status may for so long still show the old one."""


class Requests(Protocol):
    """Asking another edge process; raises EdgeError."""

    async def __call__(self, process: str, command: str, body: dict[str, Any], /) -> dict[str, Any]: ...


class Executors:
    """The steps' I/O, for one device."""

    def __init__(
        self, request: Requests, assets: AssetStore, paths: EdgePaths, config: DeviceConfig, keys: DeviceKeys
    ) -> None:
        self.assets = assets
        self._request = request
        self._paths = paths
        self._config = config
        self._keys = keys
        self._told: dict[str, float] = {}
        self._stream_uris: dict[str, str] = {}

    def settling(self, process: str) -> bool:
        """Whether the process was told something so recently that its status may not show it yet."""
        return asyncio.get_running_loop().time() - self._told.get(process, -SETTLE_S) < SETTLE_S

    async def apply_cameras(self, cameras: Sequence[WantedCamera]) -> None:
        self._stream_uris = {camera.camera_id: bare_url(camera.stream_url) for camera in cameras}
        await self._tell("ingest", {"cameras": [self._camera(camera) for camera in cameras]})

    async def apply_models(self, models: Sequence[WantedModel]) -> None:
        rows = [
            {
                "model_id": model.model_id,
                "path": str(self.assets.path(model.digest)),
                "framework": model.framework,
                "precision": model.precision,
                "inputs": [port.to_plain() for port in model.inputs],
            }
            for model in models
        ]
        clients = sorted({client for model in models for client in model.clients})
        await self._tell("inference", {"models": rows, "clients": clients})

    async def apply_applications(self, applications: Sequence[WantedApplication], keep: Sequence[str] | None) -> None:
        rows = [self._application(app) for app in applications]
        await self._tell("supervisor", {"applications": rows, "keep": None if keep is None else list(keep)})

    async def apply_outputs(self, outputs: Sequence[WantedOutput]) -> None:
        rows = [
            asdict(output) | {"cameras": list(output.cameras), "streams": dict(output.streams)} for output in outputs
        ]
        await self._tell("display", {"outputs": rows, "viewer_key": self._config.viewer_key})

    async def _tell(self, process: str, body: dict[str, Any]) -> None:
        await self._request(process, "apply", body)
        self._told[process] = asyncio.get_running_loop().time()

    def _camera(self, camera: WantedCamera) -> dict[str, Any]:
        username, password = "", ""
        if camera.sealed_credentials:
            opened = sealing.open(self._keys.seal_private, base64.b64decode(camera.sealed_credentials))
            username, password = opened.username.reveal(), opened.password.reveal()
        return {
            "camera_id": camera.camera_id,
            "url": camera.stream_url,
            "username": username,
            "password": password,
            "paused": camera.paused,
        }

    def _application(self, application: WantedApplication) -> dict[str, Any]:
        """AppSpec: what the graph says, and what only this appliance knows."""
        inputs = {
            name: port
            | (
                {
                    "streams": [
                        stream | {"stream_uri": self._stream_uris[stream["camera_id"]]} for stream in port["streams"]
                    ]
                }
                if "streams" in port
                else {}
            )
            for name, port in application.spec["inputs"].items()
        }
        return {
            **application.spec,
            "inputs": inputs,
            "rootfs": str(self.assets.path(application.archive)),
            "region": self._config.region,
            "account_id": self._config.account_id,
            "log_group": f"{self._config.log_group}/applications/{application.instance_id}",
        }


def bare_url(url: str) -> str:
    """The address as applications may see it: without user information."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
