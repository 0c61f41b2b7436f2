"""Decisions of the deployments service, pure: the life of an instance, filters, texts. No I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

from belvedere.chassis.errors import FieldError, Invalid
from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    Health,
    NodeStatus,
    Reported,
    ReportedApplication,
    Target,
    with_desired,
    without_application,
)
from belvedere.graph import Problem, ResolvedGraph
from belvedere.graph.resolved import PackageRef

TEXT_LIMIT = 255
"""Longest StatusDescription of the API."""
PAYLOAD_LIMIT = 51200
"""Longest manifest and overrides document of the API."""
DEPLOYED = "Application deployed successfully."
REMOVED = "Application removed successfully."
NOT_ENROLLED = (
    "Waits for its device, which is not enrolled yet: start the appliance with the bundle from ProvisionDevice, "
    "or delete the device and provision it again."
)
GAVE_UP = "It did not deliver in time, {before}: {reason}"
RESTARTED = "Restarted {times}; the last time: {reason}"
CONTEXT_NAME = "DEFAULT"
"""The one runtime context there is."""
_NAME = re.compile(r"[a-zA-Z0-9\-_]{1,255}")
_ROLE = re.compile(r"arn:[a-z0-9][-.a-z0-9]{0,62}:iam::([0-9]{12}):role/.+")


class Status(StrEnum):
    """Status of an instance, with the API's names."""

    DEPLOYMENT_PENDING = "DEPLOYMENT_PENDING"
    DEPLOYMENT_REQUESTED = "DEPLOYMENT_REQUESTED"
    DEPLOYMENT_IN_PROGRESS = "DEPLOYMENT_IN_PROGRESS"
    DEPLOYMENT_ERROR = "DEPLOYMENT_ERROR"
    DEPLOYMENT_SUCCEEDED = "DEPLOYMENT_SUCCEEDED"
    DEPLOYMENT_FAILED = "DEPLOYMENT_FAILED"
    REMOVAL_PENDING = "REMOVAL_PENDING"
    REMOVAL_REQUESTED = "REMOVAL_REQUESTED"
    REMOVAL_IN_PROGRESS = "REMOVAL_IN_PROGRESS"
    REMOVAL_FAILED = "REMOVAL_FAILED"
    REMOVAL_SUCCEEDED = "REMOVAL_SUCCEEDED"


FILTERS: Mapping[str, frozenset[Status]] = {
    "DEPLOYMENT_SUCCEEDED": frozenset({Status.DEPLOYMENT_SUCCEEDED}),
    "DEPLOYMENT_ERROR": frozenset({Status.DEPLOYMENT_ERROR}),
    "DEPLOYMENT_FAILED": frozenset({Status.DEPLOYMENT_FAILED}),
    "REMOVAL_SUCCEEDED": frozenset({Status.REMOVAL_SUCCEEDED}),
    "REMOVAL_FAILED": frozenset({Status.REMOVAL_FAILED}),
    "PROCESSING_DEPLOYMENT": frozenset(
        {Status.DEPLOYMENT_PENDING, Status.DEPLOYMENT_REQUESTED, Status.DEPLOYMENT_IN_PROGRESS}
    ),
    "PROCESSING_REMOVAL": frozenset({Status.REMOVAL_PENDING, Status.REMOVAL_REQUESTED, Status.REMOVAL_IN_PROGRESS}),
}
REMOVING = FILTERS["PROCESSING_REMOVAL"]
GONE = frozenset({Status.REMOVAL_SUCCEEDED})
IN_PROGRESS_STATES = frozenset(
    {
        DeviceReportedStatus.INSTALL_IN_PROGRESS,
        DeviceReportedStatus.LAUNCHED,
        DeviceReportedStatus.STARTING,
        DeviceReportedStatus.STOPPING,
        DeviceReportedStatus.STOPPED,
    }
)
ERROR_STATES = frozenset(
    {DeviceReportedStatus.INSTALL_ERROR, DeviceReportedStatus.LAUNCH_ERROR, DeviceReportedStatus.STOP_ERROR}
)
LEAVING_STATES = frozenset(
    {DeviceReportedStatus.STOPPING, DeviceReportedStatus.STOPPED, DeviceReportedStatus.REMOVAL_IN_PROGRESS}
)


@dataclass(frozen=True)
class State:
    """What is known of an instance."""

    desired: DesiredState
    status: Status
    description: str = ""
    health: Health = Health.NOT_AVAILABLE
    device_state: DeviceReportedStatus | None = None
    """As the device last said; None before it did."""
    target_version: int | None = None
    """Version of the target that holds the present wish; None until it is written."""


def next_state(instance_id: str, state: State, reported: Reported) -> State:
    """What a device's report makes of an instance.

    A report may be older than the wish: what it does not list is only gone if it has taken the wish's target into
    account. An error stays until the application runs: between two tries it would else lose its reason.
    """
    if state.status in GONE:
        return state
    application = reported.application(instance_id)
    if state.desired is DesiredState.REMOVED:
        return _removing(state, application, reported.target_version)
    return _deploying(state, application)


def _deploying(state: State, application: ReportedApplication | None) -> State:
    if application is None or state.status is Status.DEPLOYMENT_FAILED:
        return state
    if application.gave_up:
        reason = reason_text(application) or "the appliance does not say why"
        text = shortened(GAVE_UP.format(before="what it was to replace runs on", reason=reason))
        return replace(state, status=Status.DEPLOYMENT_FAILED, description=text, health=Health.ERROR,
                       device_state=application.state)  # fmt: skip
    status = state.status
    if application.state is DeviceReportedStatus.RUNNING:
        status = Status.DEPLOYMENT_SUCCEEDED
    elif application.state in ERROR_STATES:
        status = Status.DEPLOYMENT_ERROR
    elif application.state in IN_PROGRESS_STATES and status not in (
        Status.DEPLOYMENT_SUCCEEDED,
        Status.DEPLOYMENT_ERROR,
    ):
        status = Status.DEPLOYMENT_IN_PROGRESS
    text = reason_text(application)
    if text:
        text = shortened("; ".join(part for part in (text, limits_text(application, besides=text)) if part))
    elif status is Status.DEPLOYMENT_SUCCEEDED:
        text = " ".join(part for part in (DEPLOYED, limits_text(application), restarts_text(application)) if part)
        text = shortened(text)
    if not text and status is Status.DEPLOYMENT_ERROR:
        text = state.description
    return replace(state, status=status, description=text, health=application.health, device_state=application.state)


def _removing(state: State, application: ReportedApplication | None, reported_version: int) -> State:
    if application is None:
        if state.target_version is None or reported_version < state.target_version:
            return state
        return replace(
            state,
            status=Status.REMOVAL_SUCCEEDED,
            description=REMOVED,
            health=Health.NOT_AVAILABLE,
            device_state=None,
        )
    status, text = state.status, ""
    if application.state is DeviceReportedStatus.REMOVAL_FAILED:
        status, text = Status.REMOVAL_FAILED, reason_text(application)
    elif application.state in LEAVING_STATES and state.target_version is not None:
        status = Status.REMOVAL_IN_PROGRESS
    return replace(state, status=status, description=text, health=application.health, device_state=application.state)


def restarts_text(application: ReportedApplication) -> str:
    """How often it was started again, and why the last time; nothing where it never was."""
    if not application.restarts or application.last_error is None:
        return ""
    return RESTARTED.format(times=times_text(application.restarts), reason=application.last_error.message)


def limits_text(application: ReportedApplication, besides: str = "") -> str:
    """How often it has reached which limit. In words where those are said neither in `besides` nor with its last restart,
    and without those that `besides` says; nothing where it reached none."""
    told = f"{besides} {application.last_error.message if application.last_error is not None else ''}"
    reached = [
        f"{limit.limit} {times_text(limit.times)}" + (f" ({limit.message})" if limit.message not in told else "")
        for limit in application.limits
        if not besides or limit.message not in besides
    ]
    return f"Limits reached: {', '.join(reached)}." if reached else ""


def times_text(count: int) -> str:
    """As people say it."""
    return "once" if count == 1 else f"{count} times"


def reverted(target: Target, instance_id: str) -> Target:
    """Takes an instance out of a target; what it was to replace, and is still there, is wanted again."""
    application = target.application(instance_id)
    if application is None:
        return target
    if application.replaces:
        target = with_desired(target, application.replaces, DesiredState.RUNNING)
    return without_application(target, instance_id)


def reason_text(application: ReportedApplication) -> str:
    """Why it is not as wanted: its own reason, else those of its nodes; at most TEXT_LIMIT characters."""
    if application.reason is not None:
        return shortened(application.reason.message)
    texts = dict.fromkeys(node.reason.message for node in application.nodes if node.reason is not None)
    return shortened("; ".join(texts))


def shortened(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text, cut where the API cuts it."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def check_request(name: str, role_arn: str, manifest: str, overrides: str, account: str) -> None:
    """Raises Invalid naming every wrong field."""
    wrong: list[FieldError] = []
    if name and _NAME.fullmatch(name) is None:
        wrong.append(("Name", "1 to 255 letters, digits, - and _"))
    role = _ROLE.fullmatch(role_arn)
    if role_arn and role is None:
        wrong.append(("RuntimeRoleArn", "is no ARN of a role: arn:aws:iam::<account>:role/<name>"))
    elif role is not None and role.group(1) != account:
        wrong.append(("RuntimeRoleArn", f"is a role of account {role.group(1)}, you deploy for {account}"))
    if not manifest:
        wrong.append(("ManifestPayload", "is missing: PayloadData holds the application's graph.json"))
    for field, text in (("ManifestPayload", manifest), ("ManifestOverridesPayload", overrides)):
        if len(text) > PAYLOAD_LIMIT:
            wrong.append((field, f"has {len(text)} characters, at most {PAYLOAD_LIMIT} are taken"))
    if wrong:
        raise Invalid("; ".join(f"{path} {text}" for path, text in wrong), fields=wrong)


DOCUMENTS = {"": "ManifestPayload.PayloadData", "overrides.": "ManifestOverridesPayload.PayloadData"}
"""What a document as a whole is called, by its place."""


def invalid_documents(problems: Iterable[Problem]) -> Invalid:
    """The error for documents that give no graph: every place and message in `fields`, the first in the message."""
    found = [(DOCUMENTS.get(problem.place, problem.place), problem.message) for problem in problems]
    more = f" (and {len(found) - 1} more, see fields)" if len(found) > 1 else ""
    path, text = found[0]
    return Invalid(f"{path}: {text}{more}", fields=found)


class Wrong:
    """What is wrong with a request, gathered from those who look at its parts, so that all of it is told at once."""

    def __init__(self) -> None:
        self._found: list[Invalid] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, Invalid is not raised but kept."""
        try:
            yield
        except Invalid as error:
            self._found.append(error)

    def about(self, member: str) -> bool:
        """Whether something is wrong with this member of the request already."""
        return any(path == member for error in self._found for path, _ in error.fields)

    def refuse(self) -> None:
        """Raises Invalid if anything was."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            fields = [field for error in self._found for field in error.fields or [("", error.message)]]
            first = self._found[0]
            others = len(fields) - max(1, len(first.fields))
            raise Invalid(f"{first.message} ({others} more in fields)", fields=fields)


class NodeKind(StrEnum):
    """What a node of an instance is."""

    CODE = "CODE"
    MODEL = "MODEL"
    CAMERA = "CAMERA"
    DISPLAY = "DISPLAY"


@dataclass(frozen=True)
class Node:
    """A node of an instance that the API lists: those made from packages."""

    name: str
    kind: NodeKind
    package: PackageRef
    interface: str

    @property
    def node_id(self) -> str:
        """`<package>-<version>-<patch[:8]>-<interface>`."""
        ref = self.package
        return f"{ref.name}-{ref.version}-{ref.patch_version[:8]}-{self.interface}"


def nodes_of(graph: ResolvedGraph) -> tuple[Node, ...]:
    """The nodes of a graph, code first."""
    return (
        *(Node(node.name, NodeKind.CODE, node.package, node.interface) for node in graph.code),
        *(Node(node.name, NodeKind.MODEL, node.package, node.interface) for node in graph.models),
        *(Node(node.name, NodeKind.CAMERA, node.package, node.interface) for node in graph.cameras),
        *(Node(node.name, NodeKind.DISPLAY, node.package, node.interface) for node in graph.displays),
    )


def node_statuses(application: ReportedApplication | None) -> dict[str, NodeStatus]:
    """Status by node name, as the device said; nodes it did not mention are not available."""
    return {} if application is None else {node.name: node.status for node in application.nodes}


def paused_at_first(graph: ResolvedGraph) -> list[str]:
    """Camera nodes that deliver nothing before they are signalled to RESUME."""
    return sorted(node.name for node in graph.cameras if node.launch == "onSignal")


def signalled_cameras(graph: ResolvedGraph, signals: Iterable[tuple[str, bool]]) -> tuple[set[str], set[str]]:
    """Which camera nodes to pause and which to resume, of (node instance id, whether to pause).

    AWS's pause-camera script names a camera by its package; both are understood. Raises Invalid naming every other.
    """
    by_name = {node.name: node.name for node in graph.cameras}
    by_package = {node.package.name: node.name for node in graph.cameras}
    known = {node.name for node in nodes_of(graph)}
    pause, resume, wrong = set[str](), set[str](), list[FieldError]()
    for index, (name, is_pause) in enumerate(signals):
        camera = by_name.get(name, by_package.get(name))
        if camera is None:
            reason = "is no camera: only cameras can be paused" if name in known else "is no node of this application"
            wrong.append((f"NodeSignals[{index}].NodeInstanceId", f'"{name}" {reason}'))
        else:
            (pause if is_pause else resume).add(camera)
            (resume if is_pause else pause).discard(camera)
    if wrong:
        raise Invalid("; ".join(f"{path}: {text}" for path, text in wrong), fields=wrong)
    return pause, resume
