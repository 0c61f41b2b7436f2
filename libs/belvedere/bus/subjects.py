"""Every subject on the bus, as functions. Nothing else spells one.

`belvedere.events.…` what happened, between services · `up.<id>.…` from a device to the cloud · `dev.<id>.…` from the
cloud to a device · `rsp.<id>.…` a device's answers · `ctl.…` a device's own names for its imports ·
`edge.…` between the processes of one appliance. Pure.
"""

from __future__ import annotations

import re
import secrets

EVENTS_PREFIX = "belvedere.events."
EVENTS_ALL = "belvedere.events.>"

# Stream and bucket names of account FLEET.
EVENTS_STREAM = "EVENTS"
UP_LOGS_STREAM = "UP_LOGS"
UP_METRICS_STREAM = "UP_METRICS"
TARGET_BUCKET = "target"
REPORTED_BUCKET = "reported"

# What a device publishes, as the cloud side listens to it.
UP_LOGS_ALL = "up.*.logs"
UP_METRICS_ALL = "up.*.metrics"
UP_LEASE_ALL = "up.*.lease"
UP_CREDENTIALS_ALL = "up.*.credentials"
UP_HEARTBEAT_ALL = "up.*.heartbeat"

# A device's own names for what it imports.
CTL_TARGET_GET = "ctl.target.get"
CTL_REPORTED_PUT = "ctl.reported.put"

# The system account's.
SYS_CLAIMS_UPDATE = "$SYS.REQ.CLAIMS.UPDATE"
SYS_CLAIMS_DELETE = "$SYS.REQ.CLAIMS.DELETE"
SYS_SERVER_PING = "$SYS.REQ.SERVER.PING"
SYS_ACCOUNT_CONNECTIONS_ALL = "$SYS.ACCOUNT.*.SERVER.CONNS"

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")


def token(value: str) -> str:
    """`value` if it can stand as one part of a subject; ValueError where it would change what the subject means."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} cannot be a part of a subject: letters, digits, - and _ only")
    return value


def event(event_type: str) -> str:
    """The subject of an event type such as `registry.device.online`."""
    for part in event_type.split("."):
        token(part)
    return EVENTS_PREFIX + event_type


def events(service: str) -> str:
    """Every event of one service."""
    return f"{EVENTS_PREFIX}{token(service)}.>"


def up_all(device_id: str) -> str:
    """Everything one device may say."""
    return f"up.{token(device_id)}.>"


def up_logs(device_id: str) -> str:
    """Batches of a device's log entries (stream UP_LOGS)."""
    return f"up.{token(device_id)}.logs"


def up_metrics(device_id: str) -> str:
    """Batches of a device's metric data (stream UP_METRICS)."""
    return f"up.{token(device_id)}.metrics"


def up_lease(device_id: str) -> str:
    """Request: a new lease."""
    return f"up.{token(device_id)}.lease"


def up_credentials(device_id: str) -> str:
    """Request: role credentials for an application instance."""
    return f"up.{token(device_id)}.credentials"


def up_heartbeat(device_id: str) -> str:
    """Message: the device is alive."""
    return f"up.{token(device_id)}.heartbeat"


def device_of(subject: str) -> str:
    """The device id in `up.<id>.…`, `dev.<id>.…` or `rsp.<id>.…`."""
    parts = subject.split(".")
    if len(parts) < 3 or parts[0] not in ("up", "dev", "rsp"):
        raise ValueError(f"{subject!r} names no device")
    return parts[1]


def dev_all(device_id: str) -> str:
    """Everything the cloud says to one device."""
    return f"dev.{token(device_id)}.>"


def dev_command(device_id: str, command: str) -> str:
    """A command to a device; ask with `Bus.request(…, reply=rsp(device_id))`."""
    return f"dev.{token(device_id)}.{token(command)}"


def dev_target(device_id: str) -> str:
    """Where the target bucket republishes a device's document."""
    return f"dev.{token(device_id)}.target"


def rsp(device_id: str) -> str:
    """A fresh reply subject that this device, and no other, may answer on."""
    return f"rsp.{token(device_id)}.{secrets.token_hex(16)}"


def rsp_all(device_id: str) -> str:
    """Every reply subject of one device."""
    return f"rsp.{token(device_id)}.*"


def kv_stream(bucket: str) -> str:
    """The stream behind a key-value bucket."""
    return f"KV_{token(bucket)}"


def kv_key(bucket: str, key: str) -> str:
    """The subject of one key of a bucket."""
    return f"$KV.{token(bucket)}.{token(key)}"


def kv_keys(bucket: str) -> str:
    """The subjects of all keys of a bucket."""
    return f"$KV.{token(bucket)}.>"


def js_direct_get(stream: str, subject: str) -> str:
    """JetStream's subject for reading the last message of `subject` without a consumer."""
    return f"$JS.API.DIRECT.GET.{stream}.{subject}"


def edge_command(process: str, command: str) -> str:
    """A request to an edge process: `edge.ingest.apply`."""
    return f"edge.{token(process)}.{token(command)}"


def edge_commands(process: str) -> str:
    """Every command to one edge process."""
    return f"edge.{token(process)}.*"


def edge_status(process: str) -> str:
    """An edge process's status: on change and once a second."""
    return f"edge.{token(process)}.status"


def edge_log(process: str) -> str:
    """Log batches of an edge process (stream LOGS of the appliance)."""
    return f"edge.log.{token(process)}"


def edge_app_log(instance_id: str, stream: str) -> str:
    """Log batches of an application (stream LOGS of the appliance)."""
    return f"edge.log.app.{token(instance_id)}.{token(stream)}"


def edge_metric(process: str) -> str:
    """Metric batches of an edge process (stream METRICS of the appliance)."""
    return f"edge.metric.{token(process)}"


EDGE_LOGS_ALL = "edge.log.>"
EDGE_METRICS_ALL = "edge.metric.*"
EDGE_LOGS_STREAM = "LOGS"
EDGE_METRICS_STREAM = "METRICS"
EDGE_STATUS_ALL = "edge.*.status"
EDGE_ALL = "edge.>"
