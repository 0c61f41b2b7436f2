"""The cameras of a local run: files played as cameras, or addresses of real ones; which node of the graph gets which."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from belvedere.chassis.secret import Secret
from belvedere.cli.errors import CliError
from belvedere.rtsp import AddressInvalid, FaultScript, parse_target, serve_camera

HOST = "127.0.0.1"
USER = "camera"
NO_PASSWORD = Secret("")
_NAMED = re.compile(r"([A-Za-z0-9_$-]+)=(.*)", re.DOTALL)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_MAX = 40


@dataclass(frozen=True)
class Camera:
    """One camera of the run."""

    name: str
    nodes: tuple[str, ...]
    """The graph's nodes that it stands in for."""
    file: Path | None
    url: str = ""
    """Of a real camera, without user and password."""
    username: str = ""
    password: Secret[str] = NO_PASSWORD


def choose(choices: Sequence[str], nodes: Sequence[str]) -> tuple[Camera, ...]:
    """Cameras for the graph's camera nodes, from `FILE`, `URL` or `NODE=…`. Raises CliError where they don't fit."""
    groups: list[tuple[str, tuple[str, ...]]] = []
    loose: list[str] = []
    for choice in choices:
        found = _NAMED.fullmatch(choice)
        if found is None or (found[1] not in nodes and Path(choice).exists()):
            loose.append(choice)
        elif found[1] in nodes:
            groups.append((found[2], (found[1],)))
        else:
            raise CliError(f"--camera {choice}: the graph has no camera node {found[1]}; it has: {_list(nodes)}")
    rest = [node for node in nodes if not any(node in users for _, users in groups)]
    if loose and not rest:
        raise CliError(f"--camera {loose[0]}: every camera node of the graph has its camera already ({_list(nodes)})")
    if rest and not loose:
        raise CliError(f"no camera for {_list(rest)}: say --camera {rest[0]}=FILE|URL, or --camera FILE|URL for all")
    if len(loose) == 1:
        groups.append((loose[0], tuple(rest)))
    elif len(rest) == 1:
        groups += [(source, (rest[0],)) for source in loose]
    elif len(loose) == len(rest):
        groups += [(source, (node,)) for source, node in zip(loose, rest, strict=True)]
    elif loose:
        raise CliError(
            f"{len(loose)} cameras for the camera nodes {_list(rest)}: say which with --camera NODE=FILE|URL"
        )
    return _cameras(groups)


def faults_for(path: Path, cameras: Sequence[Camera]) -> FaultScript:
    """The script. Raises FaultScriptInvalid, and CliError where there is no file whose camera it could spoil."""
    if not any(camera.file for camera in cameras):
        raise CliError("--fault needs a camera that is a file: what a real camera does is its own affair")
    known = [name for camera in cameras if camera.file for name in (camera.name, *camera.nodes)]
    return FaultScript.load(path, known)


class Playing:
    """The files among the cameras, each played as one from `begin` on; an async context manager."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        faults: FaultScript | None = None,
        *,
        once: bool = False,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.cameras: tuple[Camera, ...] = tuple(cameras)
        """With their addresses, once they play."""
        self.ended = [asyncio.Event() for camera in cameras if camera.file is not None] if once else []
        """Set when each file has been played, where they are played once."""
        self._faults = faults
        self._told = told
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Raises RtspError where a file can't be played."""
        ended = iter(self.ended)
        self.cameras = tuple(
            [
                camera if camera.file is None else await self._play(camera, camera.file, next(ended, None))
                for camera in self.cameras
            ]
        )

    async def __aenter__(self) -> Playing:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _play(self, camera: Camera, file: Path, ended: asyncio.Event | None) -> Camera:
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        password = Secret(secrets.token_urlsafe(12))
        serving = asyncio.create_task(
            serve_camera(
                file, HOST, 0, camera.name, USER, password,
                ready=address.set_result, faults=self._own(camera), told=self._told, ended=ended,
            ),
            name=f"camera {camera.name}",
        )  # fmt: skip
        self._tasks.append(serving)
        waited: set[asyncio.Future[Any]] = {serving, address}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        return replace(camera, url=address.result(), username=USER, password=password)

    def _own(self, camera: Camera) -> FaultScript | None:
        if self._faults is None:
            return None
        mine = [fault for fault in self._faults.faults if fault.camera in ("", camera.name, *camera.nodes)]
        return FaultScript(tuple(replace(fault, camera="") for fault in mine), self._faults.seed)


def _cameras(groups: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[Camera, ...]:
    cameras: dict[str, Camera] = {}
    for source, nodes in groups:
        camera = _camera(source, nodes)
        same = next((known for known in cameras.values() if camera.file is None and known.url == camera.url), None)
        if same is not None:
            # A real camera is one camera, whatever it is used for; a file can be played as several.
            cameras[same.name] = replace(same, nodes=tuple(dict.fromkeys((*same.nodes, *nodes))))
            continue
        name, number = camera.name, 1
        while name in cameras:
            number += 1
            name = f"{camera.name}_{number}"
        cameras[name] = replace(camera, name=name)
    return tuple(cameras.values())


def _camera(source: str, nodes: tuple[str, ...]) -> Camera:
    if "://" not in source:
        file = Path(source).expanduser()
        if not file.is_file():
            raise CliError(f"no video at {file}: --camera takes a file, or an address that begins with rtsp://")
        return Camera(_name(file.stem), nodes, file.absolute())
    try:
        target, username, password = parse_target(source)
    except AddressInvalid as error:
        raise CliError(f"--camera: {error}") from None
    return Camera(_name(target.host), nodes, None, target.reveal(), username.reveal(), password)


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text).strip("_-")[:_NAME_MAX] or "camera"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
