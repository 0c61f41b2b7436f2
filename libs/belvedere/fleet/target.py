"""What a device is to be: the document in the KV bucket `target`, one a device, and the pure functions that change it.

Several writers change targets (deployments, device_jobs): always through `kv.update(device_id, f)` with one of these
functions inside `f`, so that a lost race is simply computed again. Every function gives back the same object when there
is nothing to change and otherwise one with the version raised by one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from belvedere.fleet.errors import DocumentError
from belvedere.records import Plain, Record


class DesiredState(StrEnum):
    """What is to become of an application."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    REMOVED = "REMOVED"


class JobKind(StrEnum):
    """What a device job does."""

    REBOOT = "REBOOT"
    OTA = "OTA"


class _Part(Record):
    read_error = DocumentError


@dataclass(frozen=True)
class TargetApplication(_Part):
    """One application instance that the device is to run, stop or remove."""

    instance_id: str
    name: str
    graph_digest: str
    """`sha256:<hex>` of the resolved graph's canonical JSON, a blob."""
    desired: DesiredState = DesiredState.RUNNING
    replaces: str | None = None
    """The instance that runs on until this one delivers frames, although its own `desired` is REMOVED."""
    role_arn: str | None = None
    """With one, the application may ask for the role's credentials."""
    paused: tuple[str, ...] = ()
    """Names of paused camera nodes."""
    camera_ids: tuple[str, ...] = ()
    """Cameras its graph uses, so that a camera leaves the target together with the last application that needs it."""


@dataclass(frozen=True)
class TargetCamera(_Part):
    """One camera that an application of this device uses."""

    camera_id: str
    """`<package name>-<version>-<patch[:8]>`, what graphs refer to."""
    stream_url: str
    """Without user name and password."""
    sealed_credentials: str = ""
    """Base64 of `sealing.seal`; empty where the camera asks for none."""


@dataclass(frozen=True)
class TargetJob(_Part):
    """One job that the device is to do once."""

    job_id: str
    kind: JobKind
    image_version: str = ""
    """For OTA: the software version to install."""


@dataclass(frozen=True)
class Target(_Part):
    """What one device is to be."""

    SCHEMA: ClassVar[int] = 1

    device_id: str
    version: int = 0
    """Raised by one with every change; a device reports the version it has taken into account."""
    applications: tuple[TargetApplication, ...] = ()
    cameras: tuple[TargetCamera, ...] = ()
    jobs: tuple[TargetJob, ...] = ()
    software_version: str = ""
    """Empty: whatever it runs."""

    def to_plain(self) -> dict[str, Plain]:
        return {"schema": self.SCHEMA, **super().to_plain()}

    def application(self, instance_id: str) -> TargetApplication | None:
        """The named instance, if the target has it."""
        return next((item for item in self.applications if item.instance_id == instance_id), None)

    def camera(self, camera_id: str) -> TargetCamera | None:
        """The named camera, if the target has it."""
        return next((item for item in self.cameras if item.camera_id == camera_id), None)

    def job(self, job_id: str) -> TargetJob | None:
        """The named job, if the target has it."""
        return next((item for item in self.jobs if item.job_id == job_id), None)


def camera_id(package: str, version: str, patch_version: str) -> str:
    """The name by which graphs and targets know a camera: `<package name>-<version>-<patch[:8]>`."""
    return f"{package}-{version}-{patch_version[:8]}"


def with_application(target: Target, application: TargetApplication, cameras: Iterable[TargetCamera]) -> Target:
    """Adds an application and its cameras, or puts them in the place of what stands there under the same ids.

    The instance that `application.replaces` names becomes REMOVED; the device runs it on until the new one delivers.
    """
    others = tuple(
        replace(item, desired=DesiredState.REMOVED) if item.instance_id == application.replaces else item
        for item in target.applications
        if item.instance_id != application.instance_id
    )
    fresh = {camera.camera_id: camera for camera in cameras}
    kept = tuple(camera for camera in target.cameras if camera.camera_id not in fresh)
    return _changed(target, replace(target, applications=(*others, application), cameras=(*kept, *fresh.values())))


def with_camera(target: Target, camera: TargetCamera) -> Target:
    """Puts a camera's new address or credentials in the place of the old; no change where the target has no such one."""
    cameras = tuple(camera if item.camera_id == camera.camera_id else item for item in target.cameras)
    return _changed(target, replace(target, cameras=cameras))


def with_desired(target: Target, instance_id: str, desired: DesiredState) -> Target:
    """Wants another state of an application; no change where the target does not have it."""
    applications = tuple(
        replace(item, desired=desired) if item.instance_id == instance_id else item for item in target.applications
    )
    return _changed(target, replace(target, applications=applications))


def without_application(target: Target, instance_id: str) -> Target:
    """Takes an application out, and the cameras that no other application needs."""
    applications = tuple(item for item in target.applications if item.instance_id != instance_id)
    needed = {camera for item in applications for camera in item.camera_ids}
    cameras = tuple(camera for camera in target.cameras if camera.camera_id in needed)
    if len(applications) == len(target.applications):
        return target
    return _changed(target, replace(target, applications=applications, cameras=cameras))


def with_paused(target: Target, instance_id: str, pause: Collection[str] = (), resume: Collection[str] = ()) -> Target:
    """Pauses and resumes camera nodes of an application, by node name."""

    def paused(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted((set(names) | set(pause)) - set(resume)))

    applications = tuple(
        replace(item, paused=paused(item.paused)) if item.instance_id == instance_id else item
        for item in target.applications
    )
    return _changed(target, replace(target, applications=applications))


def with_job(target: Target, job: TargetJob) -> Target:
    """Adds a job, or puts it in the place of the one with its id."""
    others = tuple(item for item in target.jobs if item.job_id != job.job_id)
    return _changed(target, replace(target, jobs=(*others, job)))


def without_job(target: Target, job_id: str) -> Target:
    """Takes a job out."""
    return _changed(target, replace(target, jobs=tuple(item for item in target.jobs if item.job_id != job_id)))


def changing(device_id: str, change: Callable[[Target], Target]) -> Callable[[bytes | None], bytes | None]:
    """`change` as the key-value store's `update` wants it: document in (None: there is none), document or None out.

    Raises DocumentError where what is stored can't be read.
    """

    def apply(raw: bytes | None) -> bytes | None:
        before = Target(device_id) if raw is None else Target.from_json(raw)
        after = change(before)
        return None if after is before else after.to_json().encode()

    return apply


def _changed(before: Target, after: Target) -> Target:
    return before if after == before else replace(after, version=before.version + 1)
