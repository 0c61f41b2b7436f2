"""A resolved graph: what an appliance needs to know to run one application, with every asset named by digest.

Made in the cloud by `resolve`, stored as a blob, read on the appliance. Pure data; must not know the manifest's
or the packages' documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from belvedere.graph.errors import ResolvedGraphError
from belvedere.records import Plain, Record, canonical_json

Literal = bool | int | float | str
"""Value of a parameter."""


class PortType(StrEnum):
    """Types of ports and parameters, with the documents' names."""

    BOOLEAN = "boolean"
    INT32 = "int32"
    FLOAT32 = "float32"
    STRING = "string"
    MEDIA = "media"


class _Part(Record):
    read_error = ResolvedGraphError


@dataclass(frozen=True)
class PackageRef(_Part):
    """One registered patch of a package version."""

    owner: str
    """Account id, or `panorama` for what is built in."""
    name: str
    version: str
    patch_version: str


@dataclass(frozen=True)
class Asset(_Part):
    """A file by its contents."""

    digest: str
    """`sha256:<hex>`"""
    size_bytes: int
    name: str = ""
    """The asset's name in its package."""


@dataclass(frozen=True)
class Entry(_Part):
    """What a code node starts: `<path> <name> <arguments…>` with the environment added."""

    path: str
    name: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InputPort(_Part):
    """An input of a code node."""

    name: str
    type: PortType
    default: bool | int | float | str | None = None


@dataclass(frozen=True)
class OutputPort(_Part):
    """An output of a code node."""

    name: str
    type: PortType


@dataclass(frozen=True)
class ImageInput(_Part):
    """How a camera's picture becomes an input: resized to the input's height and width, then (pixel × scale - mean) / std.

    Not in AWS's schema, where applications do this by themselves.
    """

    color: str = "BGR"
    """`BGR` (as `media.image` is), `RGB` or `GRAY`: the order of the channels."""
    fit: str = "stretch"
    """`stretch`, or `letterbox`: proportions kept, in the middle of grey (114)."""
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    """One for all channels or one for each, in the order of `color`; none: 0."""
    std: tuple[float, ...] = ()
    """The same; none: 1."""


@dataclass(frozen=True)
class TensorInput(_Part):
    """An input of a model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """`float32`, `uint8` …; the descriptor's word."""
    image: ImageInput | None = None
    """None: nothing is said; a picture is resized, and left as it is otherwise."""


@dataclass(frozen=True)
class CameraNode(_Part):
    """A camera: where frames come from."""

    name: str
    camera_id: str
    package: PackageRef
    interface: str = ""
    launch: str = "onAppStart"
    """`onSignal`: it delivers nothing before it is signalled to RESUME."""


@dataclass(frozen=True)
class Limits(_Part):
    """What the code may use, as its package asks for it; 0: whatever the appliance gives by default."""

    memory_mb: int = 0
    cpu: float = 0.0
    """Cores."""
    pids: int = 0
    """Processes and threads."""
    disk_mb: int = 0

    def given(self) -> dict[str, int | float]:
        """Those that are asked for."""
        named: dict[str, int | float] = {
            "memory_mb": self.memory_mb,
            "cpu": self.cpu,
            "pids": self.pids,
            "disk_mb": self.disk_mb,
        }
        return {name: value for name, value in named.items() if value}


NO_LIMITS = Limits()


@dataclass(frozen=True)
class CodeNode(_Part):
    """The application's own code."""

    name: str
    package: PackageRef
    interface: str
    asset: Asset
    entry: Entry
    inputs: tuple[InputPort, ...] = ()
    outputs: tuple[OutputPort, ...] = ()
    limits: Limits = NO_LIMITS


@dataclass(frozen=True)
class ModelNode(_Part):
    """A model that the code may call by the node's name."""

    name: str
    package: PackageRef
    interface: str
    asset: Asset
    framework: str
    precision: str
    """`FP32`, `FP16` or `INT8`."""
    inputs: tuple[TensorInput, ...] = ()

    @property
    def model_id(self) -> str:
        """Key under which an appliance loads it once, whoever uses it: `<digest hex>-<precision>-<hash of the inputs>`.

        The inputs belong to it: a file whose sizes are open is another model with other shapes.
        """
        inputs = canonical_json([port.to_plain() for port in self.inputs])
        return (
            f"{self.asset.digest.removeprefix('sha256:')}-{self.precision}-"
            f"{hashlib.sha256(inputs.encode()).hexdigest()[:8]}"
        )


@dataclass(frozen=True)
class DisplayNode(_Part):
    """Where annotated video goes."""

    name: str
    package: PackageRef
    interface: str = ""


@dataclass(frozen=True)
class ParameterNode(_Part):
    """A value that the owner may set."""

    name: str
    type: PortType
    value: bool | int | float | str


@dataclass(frozen=True)
class Edge(_Part):
    """One connection. A parameter has no port: its `producer_port` is empty."""

    producer_node: str
    producer_port: str
    consumer_node: str
    consumer_port: str


@dataclass(frozen=True)
class NetworkRule(_Part):
    """A port of the appliance that leads to a port of the code."""

    node: str
    container_port: int
    host_port: int


@dataclass(frozen=True)
class ResolvedGraph(_Part):
    """One application, ready to run. `to_json()` is canonical, so that `digest()` names it."""

    SCHEMA: ClassVar[int] = 1

    code: tuple[CodeNode, ...] = ()
    """At most one: an application has one business logic node, or none where it only tries cameras."""
    cameras: tuple[CameraNode, ...] = ()
    models: tuple[ModelNode, ...] = ()
    displays: tuple[DisplayNode, ...] = ()
    parameters: tuple[ParameterNode, ...] = ()
    edges: tuple[Edge, ...] = ()
    network_rules: tuple[NetworkRule, ...] = ()

    def to_plain(self) -> dict[str, Plain]:
        return {"schema": self.SCHEMA, **super().to_plain()}

    def digest(self) -> str:
        """`sha256:<hex>` of `to_json()`."""
        return "sha256:" + hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def packages(self) -> tuple[PackageRef, ...]:
        """Every package patch it uses, each once, in order of use; built-in ones not."""
        packages = [
            *(node.package for node in self.code),
            *(node.package for node in self.models),
            *(node.package for node in self.cameras),
            *(node.package for node in self.displays),
        ]
        return tuple(dict.fromkeys(package for package in packages if package.owner != BUILT_IN_OWNER))

    @property
    def assets(self) -> tuple[Asset, ...]:
        """Every file it needs, each once."""
        assets = [*(node.asset for node in self.code), *(node.asset for node in self.models)]
        return tuple({asset.digest: asset for asset in assets}.values())

    @property
    def camera_ids(self) -> tuple[str, ...]:
        """Every camera it uses, each once."""
        return tuple({node.camera_id: None for node in self.cameras})


BUILT_IN_OWNER = "panorama"
"""Owner of the packages that every appliance has."""
