"""The life of a rollout, pure: from what is known of its devices to what becomes of them. No I/O, no clock.

    PENDING → DEPLOYING → VERIFYING → SUCCEEDED          a device's way; OFFLINE while it is off
                  └───────────┴───────────┴→ ROLLING_BACK → ROLLED_BACK | FAILED

    IN_PROGRESS ⇄ PAUSED → SUCCEEDED                     the rollout's
         └──────────┴──→ ROLLING_BACK → FAILED | CANCELLED

A device that fails goes back by itself; more than `max_failures` of them stop the rollout, and all that were begun go
back. A device that is off holds nobody up, but before any device is good no further phase begins.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from belvedere.chassis.errors import FieldError, Invalid
from belvedere.fleet import Health
from services.deployments import rules
from services.deployments.rules import GONE, REMOVING, Status

PHASES_MAX = 20
GATES_MAX = 20
DEVICES_MAX = 10_000
WAIT_MAX_S = 7 * 86400
WINDOW_MAX_S = 86400
DELIVER_TIMEOUT_S = 600
TEXT_MAX = 1024
"""Of a description."""
METRICS = ("FrameRate", "ResultRate", "DroppedFrames", "ApplicationErrors", "Latency")
"""What the appliance reports of each application, in the namespace PanoramaDeviceMetrics."""
STOPPED = "The rollout was stopped"
CANCELLED = "The rollout was cancelled"
_PLACEHOLDER = re.compile(r"\$\{(device\.name|device\.id|tag\.[^}]*)\}")


class RolloutStatus(StrEnum):
    """Of a rollout."""

    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class DeviceStatus(StrEnum):
    """Of a device in a rollout."""

    PENDING = "PENDING"
    DEPLOYING = "DEPLOYING"
    VERIFYING = "VERIFYING"
    SUCCEEDED = "SUCCEEDED"
    OFFLINE = "OFFLINE"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


ENDED = frozenset({RolloutStatus.SUCCEEDED, RolloutStatus.FAILED, RolloutStatus.CANCELLED})
BEGUN = frozenset({DeviceStatus.DEPLOYING, DeviceStatus.VERIFYING, DeviceStatus.SUCCEEDED, DeviceStatus.OFFLINE})
"""Has the application, or will get it."""
BUSY = frozenset({DeviceStatus.PENDING, DeviceStatus.DEPLOYING, DeviceStatus.VERIFYING, DeviceStatus.ROLLING_BACK})
"""A phase is not over while one of its devices is this."""


class Statistic(StrEnum):
    """What is made of a metric's values in a window."""

    AVERAGE = "AVERAGE"
    SUM = "SUM"
    MINIMUM = "MINIMUM"
    MAXIMUM = "MAXIMUM"


@dataclass(frozen=True)
class Gate:
    """What must hold on each device."""

    metric: str
    statistic: Statistic
    at_least: bool
    """True: the value is to be at least the threshold; False: at most."""
    threshold: float
    window_s: int


@dataclass(frozen=True)
class Samples:
    """A metric's values in a window."""

    sum: float = 0.0
    count: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf


@dataclass(frozen=True)
class Phase:
    """A share of the devices."""

    upto: int
    """How many devices have the application at its end, those of earlier phases included."""
    wait_s: int


@dataclass(frozen=True)
class Plan:
    """What does not change in a rollout."""

    phases: tuple[Phase, ...]
    window_s: int
    """The longest of its gates'; 0: none."""
    max_failures: int
    deliver_timeout_s: int


@dataclass(frozen=True)
class Progress:
    """Where a rollout stands."""

    status: RolloutStatus
    description: str = ""
    phase: int = 0
    phase_done: datetime | None = None
    """Since when all devices of the phase are good."""
    cancelled: bool = False
    """By somebody; else it stopped by itself."""


@dataclass(frozen=True)
class Device:
    """What is known of one device."""

    device_id: str
    name: str
    phase: int
    status: DeviceStatus
    description: str = ""
    failed: bool = False
    """It did not pass; devices that go back because others did not are not failed."""
    begun: datetime | None = None
    delivered: datetime | None = None
    online: bool = True
    instance: Status | None = None
    """Status of the application instance that the rollout made on it; None: none."""
    instance_text: str = ""
    health: Health = Health.NOT_AVAILABLE
    gates: str | None = None
    """Which gate does not hold, in words; "": all hold; None: not measured."""


def next_progress(
    plan: Plan, progress: Progress, devices: Sequence[Device], now: datetime
) -> tuple[Progress, tuple[Device, ...], tuple[str, ...]]:
    """What becomes of a rollout and of its devices, and the devices to begin now."""
    if progress.status in ENDED:
        return progress, tuple(devices), ()
    devices = tuple(next_device(plan, device, now) for device in devices)
    failed = [device for device in devices if device.failed]
    running = progress.status in (RolloutStatus.IN_PROGRESS, RolloutStatus.PAUSED)
    if running and len(failed) > plan.max_failures:
        names = "; ".join(f"{device.name}: {device.description}" for device in failed[:3])
        progress = replace(
            progress, status=RolloutStatus.ROLLING_BACK, description=f"{len(failed)} failed ({names})"
        )  # fmt: skip
    if progress.status is RolloutStatus.ROLLING_BACK:
        return _going_back(progress, devices)
    if progress.status is RolloutStatus.PAUSED:
        return progress, devices, ()
    return _going_on(plan, progress, devices, now)


def next_device(plan: Plan, device: Device, now: datetime) -> Device:
    """What becomes of one device of a rollout that goes on."""
    if device.status not in BEGUN:
        return device
    reason = _failure(plan, device, now)
    if reason:
        return replace(device, status=DeviceStatus.ROLLING_BACK, description=reason, failed=True)
    if device.status is DeviceStatus.SUCCEEDED:
        return device
    if not device.online:
        text = "it is off: it gets the application when it returns"
        return replace(device, status=DeviceStatus.OFFLINE, description=text, delivered=None)
    if device.status is DeviceStatus.OFFLINE:  # it is back: its time begins anew
        device = replace(device, status=DeviceStatus.DEPLOYING, description="", begun=now)
    if device.instance is not Status.DEPLOYMENT_SUCCEEDED:
        return replace(device, description=device.instance_text)
    if device.status is DeviceStatus.DEPLOYING:
        device = replace(device, status=DeviceStatus.VERIFYING, description="", delivered=now)
    if plan.window_s and not (measurable(plan, device, now) and device.gates == ""):
        return device
    return replace(device, status=DeviceStatus.SUCCEEDED, description="")


def measurable(plan: Plan, device: Device, now: datetime) -> bool:
    """Whether a device's gates are to be measured: their windows lie behind it."""
    return (
        device.status is DeviceStatus.VERIFYING
        and device.delivered is not None
        and now >= device.delivered + timedelta(seconds=plan.window_s)
    )


def _failure(plan: Plan, device: Device, now: datetime) -> str:
    if device.instance is None or device.instance in REMOVING or device.instance in GONE:
        return "the application was removed by somebody else"
    if device.instance is Status.DEPLOYMENT_FAILED:
        return device.instance_text or "the application can't be deployed"
    if device.status in (DeviceStatus.VERIFYING, DeviceStatus.SUCCEEDED):
        if device.instance is Status.DEPLOYMENT_ERROR:
            return device.instance_text or "the application failed"
        if measurable(plan, device, now) and device.online:
            if device.gates:
                return device.gates
            if device.health is Health.ERROR:
                return device.instance_text or "the application is not well"
        return ""
    late = device.begun is not None and now > device.begun + timedelta(seconds=plan.deliver_timeout_s)
    if not (late and device.online and device.status is DeviceStatus.DEPLOYING):
        return ""
    if device.instance is Status.DEPLOYMENT_SUCCEEDED:
        return ""
    text = f"it did not deliver within {plan.deliver_timeout_s} s"
    return f"{text}: {device.instance_text}" if device.instance_text else text


def _going_back(progress: Progress, devices: Sequence[Device]) -> tuple[Progress, tuple[Device, ...], tuple[str, ...]]:
    why = CANCELLED if progress.cancelled else STOPPED

    def back(device: Device) -> Device:
        if device.status in BEGUN:
            return replace(device, status=DeviceStatus.ROLLING_BACK, description=f"{why}.")
        if device.status is DeviceStatus.PENDING:
            return replace(device, status=DeviceStatus.SKIPPED, description=f"{why} before.")
        return device

    devices = tuple(map(back, devices))
    if not any(device.status is DeviceStatus.ROLLING_BACK for device in devices):
        status = RolloutStatus.CANCELLED if progress.cancelled else RolloutStatus.FAILED
        return replace(progress, status=status), devices, ()
    return progress, devices, ()


def _going_on(
    plan: Plan, progress: Progress, devices: tuple[Device, ...], now: datetime
) -> tuple[Progress, tuple[Device, ...], tuple[str, ...]]:
    present = [device for device in devices if device.phase <= progress.phase]
    begin = tuple(device.device_id for device in present if device.status is DeviceStatus.PENDING)
    if any(device.status in BUSY for device in present):
        return replace(progress, phase_done=None, description=""), devices, begin
    if not any(device.status is DeviceStatus.SUCCEEDED for device in devices):
        text = "no device is good yet, those of this phase are off: it goes on when one returns"
        return replace(progress, phase_done=None, description=text), devices, ()
    last = progress.phase == len(plan.phases) - 1
    done = progress.phase_done or now
    if now < done + timedelta(seconds=plan.phases[progress.phase].wait_s):
        return replace(progress, phase_done=done, description=""), devices, ()
    if last:
        counts = Counter(device.status for device in devices)
        text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        return replace(progress, status=RolloutStatus.SUCCEEDED, phase_done=done, description=text), devices, ()
    return replace(progress, phase=progress.phase + 1, phase_done=None, description=""), devices, ()


def shortened(text: str) -> str:
    """At most TEXT_MAX characters."""
    return rules.shortened(text, TEXT_MAX)


def phases_of(upto: Sequence[tuple[int, bool, int]], devices: int) -> tuple[Phase, ...]:
    """Phases of (number, whether it is a percentage, wait in seconds); the last one holds all devices. Empty ones are
    left out."""
    found: list[Phase] = []
    for number, percent, wait_s in upto:
        count = min(devices, math.ceil(devices * number / 100) if percent else number)
        if count > (found[-1].upto if found else 0):
            found.append(Phase(count, wait_s))
    if not found or found[-1].upto < devices:
        found.append(Phase(devices, 0))
    return tuple(found)


def phase_of(position: int, phases: Sequence[Phase]) -> int:
    """The phase of the device at a position, both from 0."""
    return next(number for number, phase in enumerate(phases) if position < phase.upto)


def gate_failure(gate: Gate, samples: Samples) -> str:
    """Why a gate does not hold, in words; "" where it does."""
    name = f"{gate.metric} ({gate.statistic.lower()} over {gate.window_s} s)"
    if not samples.count:
        return f"{name} was not reported"
    value = {
        Statistic.AVERAGE: samples.sum / samples.count,
        Statistic.SUM: samples.sum,
        Statistic.MINIMUM: samples.minimum,
        Statistic.MAXIMUM: samples.maximum,
    }[gate.statistic]
    if (value >= gate.threshold) if gate.at_least else (value <= gate.threshold):
        return ""
    return f"{name} is {value:.4g}, {'at least' if gate.at_least else 'at most'} {gate.threshold:g} is wanted"


def filled(template: str, device_id: str, device_name: str, tags: Mapping[str, str]) -> str:
    """A device's overrides. Raises Invalid naming each tag that it lacks."""
    values = {"device.name": device_name, "device.id": device_id} | {f"tag.{key}": tags[key] for key in tags}
    missing = sorted({name for name in _PLACEHOLDER.findall(template) if name not in values})
    if missing:
        raise Invalid(f"{device_name} has no {' and no '.join(missing)}, which the overrides want")
    return _PLACEHOLDER.sub(lambda found: _in_json(values[found[1]]), template)


def _in_json(text: str) -> str:
    """As it stands within a string of JSON: a tag can't end it."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def check_plan(
    phases: Sequence[tuple[int, bool, int]], gates: Sequence[Gate], max_failures: int, timeout_s: int
) -> None:
    """Raises Invalid naming everything that is wrong."""
    wrong: list[FieldError] = []
    if len(phases) > PHASES_MAX:
        wrong.append(("phases", f"at most {PHASES_MAX}"))
    for index, (number, percent, wait_s) in enumerate(phases):
        if not 1 <= number <= (100 if percent else DEVICES_MAX):
            wrong.append((f"phases[{index}]", "1 to 100 percent" if percent else f"1 to {DEVICES_MAX} devices"))
        if not 0 <= wait_s <= WAIT_MAX_S:
            wrong.append((f"phases[{index}].wait_seconds", f"0 to {WAIT_MAX_S}"))
    if len(gates) > GATES_MAX:
        wrong.append(("gates", f"at most {GATES_MAX}"))
    for index, gate in enumerate(gates):
        if gate.metric not in METRICS:
            wrong.append((f"gates[{index}].metric", f"is one of {', '.join(METRICS)}"))
        if not 1 <= gate.window_s <= WINDOW_MAX_S:
            wrong.append((f"gates[{index}].window_seconds", f"1 to {WINDOW_MAX_S}"))
        if not math.isfinite(gate.threshold):
            wrong.append((f"gates[{index}].threshold", "is a number"))
    if max_failures < 0:
        wrong.append(("max_failures", "0 or more"))
    if not 1 <= timeout_s <= WAIT_MAX_S:
        wrong.append(("deliver_timeout_seconds", f"1 to {WAIT_MAX_S}"))
    if wrong:
        raise Invalid("; ".join(f"{path}: {text}" for path, text in wrong), fields=wrong)
