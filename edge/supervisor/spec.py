"""The documents of this room: AppSpec as it comes over the bus, app.json as the application's SDK reads it. Pure.

Shapes: docs/architecture.md §3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from belvedere.chassis.paths import short_name
from belvedere.records import Record, RecordError, canonical_json
from edge.supervisor.errors import SpecInvalid

SOCKET_ROOT = "/run/belvedere"
"""Where the sockets lie in the sandbox."""


class SpecError(RecordError):
    """AppSpec can't be read: `place` says where."""


@dataclass(frozen=True)
class Entry(Record):
    """What to start: `<path> <name> [arguments]`."""

    path: str = "$default"
    """`$default` is python3."""
    name: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits(Record):
    """What one application may use."""

    memory_mb: int = 2048
    """Of memory that the kernel can't take back; frames that cameras share are counted by share."""
    cpu: float = 0.0
    """Cores; 0 = all of them."""
    pids: int = 512
    """Processes and threads."""
    disk_mb: int = 1024
    """Of storage and logs together, of one file, and of /tmp."""


@dataclass(frozen=True)
class Stream(Record):
    """A camera at a media input."""

    camera_id: str
    stream_id: str
    stream_uri: str = ""


@dataclass(frozen=True)
class Input(Record):
    """An input port: a value, or streams."""

    type: str
    value: bool | int | float | str | None = None
    streams: tuple[Stream, ...] = ()


@dataclass(frozen=True)
class Output(Record):
    """An output port."""

    type: str = "media"
    connected: bool = False


@dataclass(frozen=True)
class Tensor(Record):
    """An input of a model."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Model(Record):
    """A model the application may call."""

    model_id: str
    inputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Port(Record):
    """A port of the appliance that leads into the sandbox."""

    host_port: int
    """Of the appliance, on every address of it."""
    container_port: int
    """Of the sandbox's loopback, at which the application listens."""
    protocol: str = "tcp"


@dataclass(frozen=True)
class AppSpec(Record):
    """One application as it is wanted."""

    read_error = SpecError

    instance_id: str
    name: str
    """The application's name, as its user gave it."""
    node: str
    """The code node's name: also of the log stream of its log files."""
    rootfs: str
    """Path of the verified archive, or of a folder already unpacked."""
    entry: Entry
    inputs: Mapping[str, Input] = field(default_factory=dict)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    region: str = "us-east-1"
    account_id: str = ""
    has_role: bool = False
    limits: Limits = field(default_factory=Limits)
    log_group: str = ""
    """Empty: the one of its instance on this device."""
    ports: tuple[Port, ...] = ()
    """Ways in."""
    replaces: str = ""
    """The instance whose storage it takes over; empty: none."""
    paused: tuple[str, ...] = ()
    """Cameras, by id, that deliver nothing to it for now. The only thing that changes without a restart."""

    @property
    def camera_ids(self) -> tuple[str, ...]:
        """Cameras at its inputs, each once."""
        return tuple({stream.camera_id: None for port in self.inputs.values() for stream in port.streams})

    @property
    def has_media_in(self) -> bool:
        """Whether frames will come."""
        return bool(self.camera_ids)

    @property
    def has_media_out(self) -> bool:
        """Whether somebody waits for its pictures."""
        return any(port.connected for port in self.outputs.values())

    def app_json(self) -> str:
        """What the SDK reads at /run/belvedere/app.json."""
        plain: dict[str, Any] = {**self.to_plain(), "socket_root": SOCKET_ROOT}
        del plain["rootfs"], plain["replaces"]
        # Ports have a value or streams, never both: the SDK is told only what there is.
        for port in plain["inputs"].values():
            del port["value" if port["type"] == "media" else "streams"]
            for stream in port.get("streams", ()):
                stream["folder"] = short_name(stream["camera_id"])
        return canonical_json(plain)


def read_keep(body: Mapping[str, Any]) -> frozenset[str] | None:
    """Of supervisor.apply: the instances whose storage and logs stay; None: everybody's. Raises SpecInvalid."""
    keep = body.get("keep")
    if keep is None:
        return None
    if not isinstance(keep, list) or not all(isinstance(instance_id, str) for instance_id in keep):
        raise SpecInvalid("keep", "must be a list of instance ids, or null")
    return frozenset(keep)


def read_apply(body: Mapping[str, Any], limits: Limits | None = None) -> tuple[AppSpec, ...]:
    """The body of supervisor.apply; `limits` for applications that come without. Raises SpecInvalid."""
    defaults = (limits or Limits()).to_plain()
    applications = body.get("applications")
    if not isinstance(applications, list):
        raise SpecInvalid("applications", "must be a list")
    specs: dict[str, AppSpec] = {}
    for number, value in enumerate(applications):
        try:
            if isinstance(value, dict) and isinstance(value.get("limits", {}), dict):
                value = {**value, "limits": {**defaults, **value.get("limits", {})}}
            spec = AppSpec.from_plain(value, f"applications[{number}]")
        except RecordError as error:
            raise SpecInvalid(error.place, error.problem) from error
        if spec.instance_id in specs:
            raise SpecInvalid(f"applications[{number}].instance_id", f"{spec.instance_id} comes twice")
        for member, name in (("instance_id", spec.instance_id), ("replaces", spec.replaces or "none")):
            if not name or "/" in name or name.startswith("."):
                raise SpecInvalid(f"applications[{number}].{member}", "can't be the name of a folder")
        for camera_id in spec.camera_ids:
            if not camera_id or "/" in camera_id or camera_id.startswith("."):
                raise SpecInvalid(
                    f"applications[{number}].inputs", f"camera_id {camera_id!r} can't be the name of a folder"
                )
        specs[spec.instance_id] = spec
    return tuple(specs.values())
