"""Looking for secrets where none may be: what a whole system keeps secret, and everything that it lets others see.

secrets = secrets_of(system, camera_passwords=["…"])          # {name: text}
for kind, place, content in places_of(system): …              # logs, events, command lines, environments
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from belvedere.bus.connection import Bus
from belvedere.bus.errors import StreamNotFound
from belvedere.bus.jetstream import api
from belvedere.bus.keyring import Keyring
from belvedere.cli.cloud import viewer_credentials
from tests.support.whole import WholeSystem

STREAMS = ("EVENTS", "KV_target", "KV_reported")
NO_SUCH_MESSAGE = 10037


@dataclass(frozen=True)
class Place:
    """Something that others see."""

    kind: str
    """"log file", "log stream", "event", "command line" or "environment"."""
    name: str
    content: str
    application: str = ""
    """Of an application's own environment: its instance, which is told its own secrets there."""


def secrets_of(system: WholeSystem, *, camera_passwords: Iterable[str]) -> dict[str, str]:
    """Every secret of the cloud side and of its appliance, and of the console's session, by a name to report it with.

    Texts that would be escaped on some way are there in their other forms, too.
    """
    found = {
        "the secret access key": system.access.secret_access_key,
        "the console's login token": system.console.login_token,
        **{f"the cookie {cookie.name}": str(cookie.value) for cookie in system.console.cookies},
    }
    viewer = viewer_credentials(system.cloud_data, system.device_id)
    found["the viewer's password"] = viewer.rtsp_password
    found["the viewer's token"] = viewer.websocket_token
    for output in viewer.outputs:
        found[f"the token of the video {output.name}"] = output.websocket_url.partition("token=")[2]
    for bundle in system.folder.glob("*.zip"):
        if zipfile.is_zipfile(bundle):
            with zipfile.ZipFile(bundle) as archive:
                found[f"the token of {bundle.name}"] = json.loads(archive.read("config.json"))["token"]
    for number, password in enumerate(camera_passwords):
        encoded = base64.b64encode(password.encode()).decode()
        forms = {"": password, " for addresses": quote(password, safe=""), " in base64": encoded.rstrip("=")}
        found |= {f"camera password {number}{form}": text for form, text in forms.items()}
    device = system.appliance_data / "device"
    found["the viewer key"] = json.loads((device / "config.json").read_text())["viewer_key"]
    found["the seed of the local bus"] = json.loads((device / "bus.json").read_text())["nkey_seed"]
    found["the device's seed"] = (device / "device.nk").read_text().strip()
    for file in (system.cloud_data / "secrets" / "nats").iterdir():
        found[f"the hub's {file.name}"] = file.read_text().strip()
    assert all(len(text) >= 8 for text in found.values()), [name for name, text in found.items() if len(text) < 8]
    return found


def places_of(system: WholeSystem) -> Iterator[Place]:
    """Everything of the system that others see, as it stands now."""
    for pattern in ("logs/*", "*/logs/**/*", "*/applogs/**/*"):
        for file in system.folder.glob(pattern):
            if file.is_file():
                yield Place("log file", str(file), file.read_text(errors="replace"))
    for group, stream in system.log_streams():
        yield Place("log stream", f"{group} {stream}", "\n".join(system.log_messages(group, stream)))
    yield from asyncio.run(_events(system))
    for folder in Path("/proc").glob("[0-9]*"):
        yield from _process(folder)


async def _events(system: WholeSystem) -> list[Place]:
    """What the hub keeps: events, and the documents of the fleet."""
    ports = json.loads((system.cloud_data / "ports.json").read_text())
    credentials = Keyring.open(system.cloud_data / "secrets").services_credentials(int(time.time()))
    found: list[Place] = []
    async with await Bus.connect(f"nats://127.0.0.1:{ports['hub']}", credentials, "looking for traces") as bus:
        for stream in STREAMS:
            sequence = 0
            while (message := await _next(bus, stream, sequence + 1)) is not None:
                sequence = int(message["seq"])
                data = base64.b64decode(message.get("data", "")).decode(errors="replace")
                found.append(Place("event", f"{stream} {message['subject']}", data))
    return found


async def _next(bus: Bus, stream: str, sequence: int) -> dict[str, str] | None:
    question = {"seq": sequence, "next_by_subj": ">"}
    try:
        answer = await api(bus, f"STREAM.MSG.GET.{stream}", question, what=f"cannot read {stream}")
    except StreamNotFound as error:
        if error.code == NO_SUCH_MESSAGE:
            return None
        raise
    message: dict[str, str] = answer["message"]
    return message


def _process(folder: Path) -> Iterator[Place]:
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        yield Place("command line", command, command)
        variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ProcessLookupError):
        return  # it ended meanwhile, or is not ours to read: then nobody else of ours reads it either
    values = dict(variable.partition("=")[::2] for variable in variables)
    yield Place("environment", command, "\n".join(variables), values.get("AppGraph_Uid", ""))
