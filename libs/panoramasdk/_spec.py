"""What the supervisor says about this application: `app.json`, read once. Pure but for the one file.

The file is the AppSpec of docs/architecture.md §3; fields that are not named here are somebody else's.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Mapping

from panoramasdk._errors import NodeError

APP_FILE = "/run/belvedere/app.json"
APP_FILE_ENV = "BELVEDERE_APP"
"""Another place for the file: for tests, and for sandboxes that cannot have /run."""
SOCKET_ROOT = "/run/belvedere"

LITERALS = {"boolean": bool, "int32": int, "float32": float, "string": str}
MEDIA = "media"


@dataclass(frozen=True)
class Stream:
    """One camera at a media input."""

    camera_id: str
    stream_id: str
    """What `media.stream_id` says."""
    stream_uri: str
    """Without credentials."""
    folder: str
    """Where its socket lies: the camera's id, or something shorter, since the path of a socket is limited."""


@dataclass(frozen=True)
class Input:
    """One input port: either the streams of a media port, or a value."""

    is_media: bool
    value: Any = None
    streams: tuple[Stream, ...] = ()


@dataclass(frozen=True)
class Tensor:
    """One input of a model, as its descriptor declares it."""

    name: str
    shape: tuple[int, ...]
    """A side below 1 is free."""
    dtype: str


@dataclass(frozen=True)
class Model:
    model_id: str
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class AppSpec:
    """What this process is."""

    instance_id: str
    node: str
    socket_root: str
    inputs: Mapping[str, Input]
    outputs: Mapping[str, bool]
    """Name of the port → whether it leads to a display."""
    models: Mapping[str, Model]
    paused: tuple[str, ...] = ()
    """Cameras, by id, that deliver nothing at first."""

    def camera_socket(self, stream: Stream) -> str:
        return os.path.join(self.socket_root, "cameras", stream.folder, "frames.sock")

    def calls_socket(self) -> str:
        return os.path.join(self.socket_root, "inference", "calls.sock")

    def outputs_socket(self) -> str:
        return os.path.join(self.socket_root, "display", "outputs.sock")

    def control_socket(self) -> str:
        return os.path.join(self.socket_root, "app", "control.sock")


def load(path: str | None = None) -> AppSpec:
    """Read the file. NodeError where it is missing or does not say what this process is."""
    path = path or os.environ.get(APP_FILE_ENV) or APP_FILE
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise NodeError(
            "%s cannot be read (%s): panoramasdk works in applications that Belvedere has started"
            % (path, error.strerror)
        ) from error
    except ValueError as error:
        raise NodeError("%s is not JSON: %s" % (path, error)) from error
    try:
        return parse(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NodeError("%s does not describe an application: %s: %s" % (path, type(error).__name__, error)) from error


def parse(document: Mapping[str, Any]) -> AppSpec:
    """KeyError, TypeError or ValueError where the document is not an AppSpec."""
    return AppSpec(
        instance_id=str(document["instance_id"]),
        node=str(document["node"]),
        socket_root=str(document.get("socket_root") or SOCKET_ROOT),
        inputs={name: _input(described) for name, described in document.get("inputs", {}).items()},
        outputs={name: bool(described.get("connected")) for name, described in document.get("outputs", {}).items()},
        models={name: _model(described) for name, described in document.get("models", {}).items()},
        paused=tuple(str(camera_id) for camera_id in document.get("paused", [])),
    )


def _input(described: Mapping[str, Any]) -> Input:
    kind = described["type"]
    if kind == MEDIA:
        return Input(True, streams=tuple(_stream(stream) for stream in described.get("streams", [])))
    if kind not in LITERALS:
        raise ValueError("an input of type %r" % kind)
    return Input(False, value=LITERALS[kind](described["value"]))


def _stream(described: Mapping[str, Any]) -> Stream:
    camera_id = str(described["camera_id"])
    return Stream(
        camera_id,
        str(described["stream_id"]),
        str(described.get("stream_uri", "")),
        str(described.get("folder") or camera_id),
    )


def _model(described: Mapping[str, Any]) -> Model:
    tensors = [
        Tensor(str(tensor["name"]), tuple(int(side) for side in tensor["shape"]), str(tensor["dtype"]))
        for tensor in described.get("inputs", [])
    ]
    return Model(str(described["model_id"]), tuple(tensors))
