"""What an appliance says it is: the document in the KV bucket `reported`, one a device. Pure data.

Times are unix milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from belvedere.fleet.errors import DocumentError
from belvedere.records import Plain, Record


class ReasonCode(StrEnum):
    """Why something is not in its wanted state."""

    CAMERA_UNAUTHORIZED = "CAMERA_UNAUTHORIZED"
    CAMERA_UNREACHABLE = "CAMERA_UNREACHABLE"
    CAMERA_NOT_FOUND = "CAMERA_NOT_FOUND"
    CAMERA_STALLED = "CAMERA_STALLED"
    CAMERA_UNSUPPORTED = "CAMERA_UNSUPPORTED"
    MODEL_INVALID = "MODEL_INVALID"
    MODEL_UNSUPPORTED = "MODEL_UNSUPPORTED"
    ASSET_UNAVAILABLE = "ASSET_UNAVAILABLE"
    ASSET_INVALID = "ASSET_INVALID"
    APP_EXITED = "APP_EXITED"
    APP_OUT_OF_MEMORY = "APP_OUT_OF_MEMORY"
    APP_NO_OUTPUT = "APP_NO_OUTPUT"
    APP_HUNG = "APP_HUNG"
    APP_START_FAILED = "APP_START_FAILED"
    APP_LIMIT_REACHED = "APP_LIMIT_REACHED"
    APP_PORT_UNAVAILABLE = "APP_PORT_UNAVAILABLE"
    APPLIANCE_ERROR = "APPLIANCE_ERROR"

    @classmethod
    def _missing_(cls, value: object) -> ReasonCode | None:
        # A newer appliance may know more codes; its message still says what is wrong.
        return cls.APPLIANCE_ERROR if isinstance(value, str) else None


class DeviceReportedStatus(StrEnum):
    """State of one application on its device, with the AWS API's names."""

    INSTALL_IN_PROGRESS = "INSTALL_IN_PROGRESS"
    INSTALL_ERROR = "INSTALL_ERROR"
    LAUNCHED = "LAUNCHED"
    LAUNCH_ERROR = "LAUNCH_ERROR"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    STOP_ERROR = "STOP_ERROR"
    REMOVAL_IN_PROGRESS = "REMOVAL_IN_PROGRESS"
    REMOVAL_FAILED = "REMOVAL_FAILED"


class Health(StrEnum):
    """How an application fares now."""

    RUNNING = "RUNNING"
    ERROR = "ERROR"
    NOT_AVAILABLE = "NOT_AVAILABLE"


class NodeStatus(StrEnum):
    """How a node of an application, or a camera, fares now."""

    RUNNING = "RUNNING"
    ERROR = "ERROR"
    NOT_AVAILABLE = "NOT_AVAILABLE"
    PAUSED = "PAUSED"


class NetworkConnection(StrEnum):
    """State of a network interface or of the time service, with the AWS API's names."""

    CONNECTED = "CONNECTED"
    NOT_CONNECTED = "NOT_CONNECTED"
    CONNECTING = "CONNECTING"


class JobProgress(StrEnum):
    """State of a device job, with the AWS API's names."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    VERIFYING = "VERIFYING"
    REBOOTING = "REBOOTING"
    DOWNLOADING = "DOWNLOADING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class _Part(Record):
    read_error = DocumentError


@dataclass(frozen=True)
class Reason(_Part):
    """Why something is not as wanted."""

    code: ReasonCode
    message: str
    """For people: what is wrong and what to do. Never holds a credential."""
    node: str | None = None
    """Graph node the reason is about; None where it is about the whole application."""


@dataclass(frozen=True)
class ReportedNode(_Part):
    """One node of an application's graph."""

    name: str
    status: NodeStatus
    reason: Reason | None = None


@dataclass(frozen=True)
class ReportedLimit(_Part):
    """A limit that an application has reached."""

    limit: str
    """As in a package's requirements: "memory_mb", "cpu", "pids", "disk_mb"."""
    times: int
    """Since the appliance's supervisor started. One that leaves it running counts once a minute at most."""
    message: str
    """For people: what it came to the last time, and what to do."""


@dataclass(frozen=True)
class ReportedApplication(_Part):
    """One application instance. An instance that is wholly removed is no longer listed."""

    instance_id: str
    state: DeviceReportedStatus
    health: Health = Health.NOT_AVAILABLE
    reason: Reason | None = None
    nodes: tuple[ReportedNode, ...] = ()
    first_output_at_ms: int | None = None
    """When it first delivered (took frames and, with a connected sink, put one), unix milliseconds."""
    restarts: int = 0
    last_error: Reason | None = None
    """Why it was last started again; stays when it runs."""
    gave_up: bool = False
    """It was to replace another, and has not delivered in the time it had: it is stopped, and the other runs on."""
    limits: tuple[ReportedLimit, ...] = ()
    """Those that it has reached; absent in reports of older appliances."""


@dataclass(frozen=True)
class ReportedCamera(_Part):
    """One camera of the target."""

    camera_id: str
    status: NodeStatus
    reason: Reason | None = None
    width: int | None = None
    """Pixels, of the stream as the camera sends it."""
    height: int | None = None
    fps: float | None = None
    codec: str | None = None


@dataclass(frozen=True)
class ReportedJob(_Part):
    """One job of the target."""

    job_id: str
    status: JobProgress
    reason: Reason | None = None


@dataclass(frozen=True)
class ReportedVideo(_Part):
    """Where one application's output can be seen on the appliance's network."""

    instance_id: str
    name: str
    rtsp_url: str
    websocket_url: str


@dataclass(frozen=True)
class ReportedInterface(_Part):
    """One network interface."""

    connection_status: NetworkConnection
    ip_address: str | None = None
    """With prefix length, as `192.168.0.1/24`."""
    hw_address: str | None = None


@dataclass(frozen=True)
class ReportedNtp(_Part):
    """The time service."""

    connection_status: NetworkConnection
    ntp_server_name: str | None = None
    ip_address: str | None = None


@dataclass(frozen=True)
class ReportedNetworking(_Part):
    """The appliance's network; what it has not is None."""

    ethernet0: ReportedInterface | None = None
    ethernet1: ReportedInterface | None = None
    ntp: ReportedNtp | None = None


@dataclass(frozen=True)
class Reported(_Part):
    """What one device says it is."""

    SCHEMA: ClassVar[int] = 1

    device_id: str
    target_version: int
    """Version of the target that this report has taken into account; 0 before the first."""
    reported_at_ms: int
    software_version: str
    networking: ReportedNetworking = ReportedNetworking()
    applications: tuple[ReportedApplication, ...] = ()
    cameras: tuple[ReportedCamera, ...] = ()
    jobs: tuple[ReportedJob, ...] = ()
    video: tuple[ReportedVideo, ...] = ()

    def to_plain(self) -> dict[str, Plain]:
        return {"schema": self.SCHEMA, **super().to_plain()}

    def application(self, instance_id: str) -> ReportedApplication | None:
        """The named instance, if the device lists it."""
        return next((item for item in self.applications if item.instance_id == instance_id), None)

    def job(self, job_id: str) -> ReportedJob | None:
        """The named job, if the device lists it."""
        return next((item for item in self.jobs if item.job_id == job_id), None)
