"""What to do next, as a pure function of what is wanted and what is. No I/O, no clock, no randomness.

    plan(target, current) -> steps

The loop (`loop.py`) runs the steps through the executors, looks again, and ends when there are none. The other edge
processes take their whole wanted set at once and change only what differs, so one Apply step a process is all it takes.

A replacement: while the new application has not delivered, the one it replaces stays in the wanted set, with its own
cameras and models. It leaves in the plan that follows the new one's first output. Where the new one was given up
(`deliveries`), it leaves instead, and the old one stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from belvedere.fleet import DesiredState, Reason, Target, TargetApplication, TargetJob
from belvedere.graph import CodeView, PortType, ResolvedGraph, TensorInput, ViewInput, app_view


@dataclass(frozen=True)
class WantedCamera:
    """One camera as ingest is to read it; credentials are still sealed."""

    camera_id: str
    stream_url: str
    sealed_credentials: str
    paused: bool


@dataclass(frozen=True)
class WantedModel:
    """One model as inference is to load it, whoever uses it."""

    model_id: str
    digest: str
    framework: str
    precision: str
    inputs: tuple[TensorInput, ...]
    clients: tuple[str, ...] = ()
    """Instances that call it: each gets a socket of its own."""


@dataclass(frozen=True)
class WantedApplication:
    """One application as the supervisor is to run it."""

    instance_id: str
    archive: str
    """Digest of its container archive."""
    spec: Mapping[str, Any]
    """AppSpec (docs/architecture.md §3) without what only this appliance knows."""


@dataclass(frozen=True)
class WantedOutput:
    """One application's picture as the display is to offer it."""

    instance_id: str
    application: str
    node: str
    cameras: tuple[str, ...]
    streams: tuple[tuple[str, str], ...] = ()
    """(stream id, camera id)."""


@dataclass(frozen=True)
class Wanted:
    """The whole wanted sets, one an edge process."""

    cameras: tuple[WantedCamera, ...] = ()
    models: tuple[WantedModel, ...] = ()
    applications: tuple[WantedApplication, ...] = ()
    outputs: tuple[WantedOutput, ...] = ()
    keep: tuple[str, ...] | None = None
    """Instances whose storage and logs stay on the appliance; None: nobody's is to be removed."""


@dataclass(frozen=True)
class Current:
    """What is, as far as the agent knows."""

    graphs: Mapping[str, ResolvedGraph] = field(default_factory=dict)
    """By digest; those that are here."""
    assets: frozenset[str] = frozenset()
    """Digests that are here, verified."""
    busy: frozenset[str] = frozenset()
    """Digests being fetched, or waiting for their next try."""
    cameras: tuple[WantedCamera, ...] | None = None
    """What ingest accepted last; None: nothing, or it has started anew."""
    models: tuple[WantedModel, ...] | None = None
    applications: tuple[WantedApplication, ...] | None = None
    outputs: tuple[WantedOutput, ...] | None = None
    keep: tuple[str, ...] | None = None
    """What the supervisor was told with the applications."""
    given_up: Mapping[str, Reason] = field(default_factory=dict)
    """Replacements that had their time and did not deliver, and why; remembered across restarts."""
    delivered: frozenset[str] = frozenset()
    """Instances that have delivered since they were deployed; remembered across restarts."""
    jobs: frozenset[str] = frozenset()
    """Jobs begun or done."""


@dataclass(frozen=True)
class FetchGraph:
    digest: str


@dataclass(frozen=True)
class FetchAsset:
    digest: str


@dataclass(frozen=True)
class ApplyCameras:
    cameras: tuple[WantedCamera, ...]


@dataclass(frozen=True)
class ApplyModels:
    models: tuple[WantedModel, ...]


@dataclass(frozen=True)
class ApplyApplications:
    applications: tuple[WantedApplication, ...]
    keep: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ApplyOutputs:
    outputs: tuple[WantedOutput, ...]


@dataclass(frozen=True)
class RunJob:
    job: TargetJob


_Item = TypeVar("_Item", WantedApplication, WantedOutput)

Step = FetchGraph | FetchAsset | ApplyCameras | ApplyModels | ApplyApplications | ApplyOutputs | RunJob


def plan(target: Target, current: Current) -> list[Step]:
    """The steps that can be taken now, in the order in which they are best begun. Empty: what is, is what is wanted."""
    steps: list[Step] = []
    for digest in _missing(target, current):
        steps.append(FetchGraph(digest) if digest in _graph_digests(target) else FetchAsset(digest))
    wanted = wanted_sets(target, current)
    # Where the data comes from before what uses it; the display before the applications, so that no picture is missed.
    if wanted.cameras != current.cameras:
        steps.append(ApplyCameras(wanted.cameras))
    if wanted.models != current.models:
        steps.append(ApplyModels(wanted.models))
    if wanted.outputs != current.outputs:
        steps.append(ApplyOutputs(wanted.outputs))
    if wanted.applications != current.applications or _to_sweep(wanted, current):
        steps.append(ApplyApplications(wanted.applications, wanted.keep))
    steps += [RunJob(job) for job in target.jobs if job.job_id not in current.jobs]
    return steps


def live(target: Target, current: Current) -> list[TargetApplication]:
    """The applications that are to be there now: the wanted ones, and each that was replaced by one that has not delivered.
    Without those that were given up, as long as there is what they were to replace."""
    held = {
        app.replaces
        for app in target.applications
        if app.desired == DesiredState.RUNNING and app.replaces and app.instance_id not in current.delivered
    }
    return [
        app
        for app in target.applications
        if (app.desired == DesiredState.RUNNING and not _given_up(app, target, current))
        or (app.desired == DesiredState.REMOVED and app.instance_id in held)
    ]


def _given_up(app: TargetApplication, target: Target, current: Current) -> bool:
    return app.instance_id in current.given_up and target.application(app.replaces or "") is not None


def _to_sweep(wanted: Wanted, current: Current) -> frozenset[str]:
    """Whose storage was to stay, and is not any more."""
    return frozenset() if wanted.keep is None else frozenset(current.keep or ()).difference(wanted.keep)


def _keep(target: Target, current: Current) -> tuple[str, ...] | None:
    if target.version == 0:
        return None  # nobody has said yet what is to be here
    stopped = [app for app in target.applications if app.desired == DesiredState.STOPPED]
    return tuple(sorted({app.instance_id for app in (*live(target, current), *stopped)}))


def wanted_sets(target: Target, current: Current) -> Wanted:
    """What each edge process is to have, given what is here already."""
    known = [
        (app, current.graphs[app.graph_digest]) for app in live(target, current) if app.graph_digest in current.graphs
    ]
    cameras = _cameras(target, known)
    camera_ids = {camera.camera_id for camera in cameras}
    models: dict[str, WantedModel] = {}
    for app, graph in known:
        for model in _models(graph):
            if model.digest in current.assets:
                clients = models.get(model.model_id, model).clients
                models[model.model_id] = replace(model, clients=tuple(sorted({*clients, app.instance_id})))
    ready = [
        (app, graph, view)
        for app, graph in known
        if _assets(graph) <= current.assets and camera_ids.issuperset(graph.camera_ids)
        for view in app_view(graph)
    ]
    return Wanted(
        cameras=cameras,
        models=tuple(models[key] for key in sorted(models)),
        applications=_ordered(
            [
                WantedApplication(app.instance_id, view.node.asset.digest, _spec(app, graph, view))
                for app, graph, view in ready
            ]
        ),
        outputs=_ordered([output for app, _, view in ready if (output := _output(app, view))]),
        keep=_keep(target, current),
    )


def _cameras(target: Target, known: list[tuple[TargetApplication, ResolvedGraph]]) -> tuple[WantedCamera, ...]:
    users: dict[str, list[bool]] = {}
    # For each camera, whether each application that uses it has it paused: it rests only when nobody wants it.
    for app, graph in known:
        for node in graph.cameras:
            users.setdefault(node.camera_id, []).append(node.name in app.paused)
    offered = ((camera_id, target.camera(camera_id), all(paused)) for camera_id, paused in sorted(users.items()))
    return tuple(
        WantedCamera(camera_id, camera.stream_url, camera.sealed_credentials, paused)
        for camera_id, camera, paused in offered
        if camera is not None
    )


def _missing(target: Target, current: Current) -> list[str]:
    """Digests to fetch now, the graph of an application before its assets."""
    needed: dict[str, None] = {}
    for app in live(target, current):
        graph = current.graphs.get(app.graph_digest)
        if graph is None:
            needed[app.graph_digest] = None
        else:
            needed.update(dict.fromkeys(sorted(_assets(graph) - current.assets)))
    return [digest for digest in needed if digest not in current.busy]


def _graph_digests(target: Target) -> set[str]:
    return {app.graph_digest for app in target.applications}


def _assets(graph: ResolvedGraph) -> frozenset[str]:
    return frozenset(asset.digest for asset in graph.assets)


def model_names(target: Target, current: Current) -> dict[str, list[str]]:
    """The names by which applications call each model, by its id."""
    names: dict[str, set[str]] = {}
    for app in live(target, current):
        graph = current.graphs.get(app.graph_digest)
        for model in graph.models if graph is not None else ():
            names.setdefault(model.model_id, set()).add(model.name)
    return {model_id: sorted(found) for model_id, found in names.items()}


def _models(graph: ResolvedGraph) -> list[WantedModel]:
    return [
        WantedModel(
            model.model_id,
            model.asset.digest,
            model.framework,
            model.precision,
            model.inputs,
        )
        for model in graph.models
    ]


def _spec(app: TargetApplication, graph: ResolvedGraph, view: CodeView) -> dict[str, Any]:
    return {
        "instance_id": app.instance_id,
        "name": app.name,
        "node": view.node.name,
        "entry": view.node.entry.to_plain(),
        "inputs": {port.name: _input(port) for port in view.inputs},
        "outputs": {port.name: {"type": str(port.type), "connected": port.connected} for port in view.outputs},
        "models": {
            model.name: {
                "model_id": model.model_id,
                "inputs": [
                    {"name": port.name, "shape": list(port.shape), "dtype": port.dtype} for port in model.inputs
                ],
            }
            for model in view.models
        },
        "ports": [
            {"host_port": port.host_port, "container_port": port.container_port, "protocol": "tcp"}
            for port in view.ports
        ],
        "has_role": app.role_arn is not None,
        "replaces": app.replaces or "",
        "paused": sorted({node.camera_id for node in graph.cameras if node.name in app.paused}),
        **({"limits": limits} if (limits := view.node.limits.given()) else {}),
    }


def _input(port: ViewInput) -> dict[str, Any]:
    if port.type is not PortType.MEDIA:
        return {"type": str(port.type), "value": port.value}
    streams = [{"camera_id": stream.camera_id, "stream_id": stream.stream_id} for stream in port.streams]
    return {"type": str(port.type), "streams": streams}


def _output(app: TargetApplication, view: CodeView) -> WantedOutput | None:
    if not any(output.connected for output in view.outputs):
        return None
    streams = {(stream.stream_id, stream.camera_id) for port in view.inputs for stream in port.streams}
    return WantedOutput(app.instance_id, app.name, view.node.name, tuple(sorted(view.cameras)), tuple(sorted(streams)))


def _ordered(items: list[_Item]) -> tuple[_Item, ...]:
    return tuple(sorted(items, key=lambda item: item.instance_id))
