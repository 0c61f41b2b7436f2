"""What the registry decides. Pure: device states, enrolment, signatures, the order of lists. No I/O, no clock."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from belvedere.bus import jwt
from belvedere.bus.jwt import Kind
from belvedere.chassis.errors import Invalid

NAME = re.compile(r"[a-zA-Z0-9\-_]{1,255}")
SERIAL = re.compile(r"[0-9]{1,20}")
DESCRIPTION_MAX = 255
SOFTWARE_MAX = 255
SEAL_KEY_BYTES = 32
SIGNATURE_SKEW_S = 300
SIGNATURE_SCHEME = "Belvedere-Device"
_STATIC_IP = {"ip_address": "IpAddress", "mask": "Mask", "default_gateway": "DefaultGateway", "dns": "Dns"}
REBOOTING, ONLINE, OFFLINE, LEASE_EXPIRED = "REBOOTING", "ONLINE", "OFFLINE", "LEASE_EXPIRED"
NOT_AVAILABLE = "NOT_AVAILABLE"
"""What CurrentSoftware says until the device has said it."""


class Provisioning(StrEnum):
    """DeviceStatus of the API, as far as a device gets here."""

    AWAITING_PROVISIONING = "AWAITING_PROVISIONING"
    """Provisioned, its appliance has not enrolled."""
    PENDING = "PENDING"
    """Enrolled, not connected yet."""
    SUCCEEDED = "SUCCEEDED"
    """Was connected at least once."""


STATUSES = (Provisioning.AWAITING_PROVISIONING, Provisioning.PENDING, ONLINE, OFFLINE, LEASE_EXPIRED, REBOOTING)
"""Every DeviceAggregatedStatus that a device gets here."""


@dataclass(frozen=True)
class DeviceState:
    """What a device's status follows from."""

    provisioning: Provisioning
    connected: bool
    lease_expires: datetime | None
    rebooting: bool = False


def standing(state: DeviceState) -> str:
    """What of a device's status is in its row: all but that a lease expires by itself."""
    if state.provisioning is not Provisioning.SUCCEEDED:
        return state.provisioning.value
    if state.rebooting:
        return REBOOTING
    return ONLINE if state.connected else OFFLINE


def aggregated_status(state: DeviceState, now: datetime) -> str:
    """DeviceAggregatedStatus of the API, without its prefix."""
    found = standing(state)
    if found == OFFLINE and state.lease_expires is not None and state.lease_expires <= now:
        return LEASE_EXPIRED
    return found


def holds_until(states: Iterable[DeviceState], now: datetime) -> datetime | None:
    """When what is said of these devices now may turn wrong by itself: the next end of a lease. None: never."""
    return min((s.lease_expires for s in states if s.lease_expires is not None and s.lease_expires > now), default=None)


def connection_status(state: DeviceState) -> str:
    """DeviceConnectionStatus of the API, without its prefix."""
    match state.provisioning:
        case Provisioning.AWAITING_PROVISIONING:
            return "AWAITING_CREDENTIALS"
        case Provisioning.PENDING:
            return "NOT_AVAILABLE"
        case Provisioning.SUCCEEDED:
            return "ONLINE" if state.connected else "OFFLINE"


def check_new(name: str, description: str, networking: Mapping[str, Any]) -> None:
    """Raises Invalid for what ProvisionDevice does not take. `networking`: NetworkPayload as a dict of its fields."""
    fields = []
    if not NAME.fullmatch(name):
        fields.append(("Name", "1 to 255 letters, digits, - and _"))
    fields += _description(description)
    fields += _networking(networking)
    if fields:
        raise Invalid("; ".join(f"{path}: {text}" for path, text in fields), fields)


def check_description(description: str) -> None:
    """Raises Invalid for a description that is too long."""
    if fields := _description(description):
        raise Invalid(f"Description: {fields[0][1]}", fields)


def _networking(networking: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A port with a fixed address has to be told it, whole: nothing else could ever reach that appliance."""
    fields = []
    for port in ("ethernet0", "ethernet1"):
        if networking.get(port, {}).get("connection_type") != "CONNECTION_TYPE_STATIC_IP":
            continue
        info = networking[port].get("static_ip_connection_info")
        place = f"NetworkingConfiguration.{port.capitalize()}.StaticIpConnectionInfo"
        if info is None:
            fields.append((place, "is required where ConnectionType is STATIC_IP"))
        else:
            fields += [(f"{place}.{name}", "is required") for field, name in _STATIC_IP.items() if not info.get(field)]
    return fields


def _description(description: str) -> list[tuple[str, str]]:
    return [("Description", f"at most {DESCRIPTION_MAX} characters")] if len(description) > DESCRIPTION_MAX else []


# --- enrolment ---------------------------------------------------------------------------------------------------


class RefusalCode(StrEnum):
    """Why the device port refuses; the HTTP status it goes with."""

    INVALID_REQUEST = "INVALID_REQUEST"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    ALREADY_ENROLLED = "ALREADY_ENROLLED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    DEVICE_DELETED = "DEVICE_DELETED"
    NOT_FOUND = "NOT_FOUND"
    RANGE_INVALID = "RANGE_INVALID"
    UNAVAILABLE = "UNAVAILABLE"


HTTP_STATUS: Mapping[RefusalCode, int] = {
    RefusalCode.INVALID_REQUEST: 400,
    RefusalCode.UNAUTHENTICATED: 401,
    RefusalCode.TOKEN_INVALID: 403,
    RefusalCode.NOT_FOUND: 404,
    RefusalCode.ALREADY_ENROLLED: 409,
    RefusalCode.TOKEN_EXPIRED: 410,
    RefusalCode.DEVICE_DELETED: 410,
    RefusalCode.RANGE_INVALID: 416,
    RefusalCode.UNAVAILABLE: 503,
}


class Refused(Exception):
    """The device port refuses; the message says what to do."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class EnrolRequest:
    """What an appliance sends to POST /enrol."""

    device_id: str
    token: str
    nats_public_key: str
    seal_public_key: bytes
    serial_number: str
    software_version: str


def parse_enrol(body: Any) -> EnrolRequest:
    """Reads a request. Raises Refused(INVALID_REQUEST) that names what is wrong."""

    def text(name: str, needed: bool = True) -> str:
        value = body.get(name, "")
        if not isinstance(value, str) or (needed and not value):
            raise Refused(RefusalCode.INVALID_REQUEST, f"{name}: a text is expected")
        return value

    if not isinstance(body, dict):
        raise Refused(RefusalCode.INVALID_REQUEST, "a JSON object is expected")
    device_id, token, nats_key = text("device_id"), text("token"), text("nats_public_key")
    if not jwt.is_public_key(nats_key, Kind.USER):
        raise Refused(RefusalCode.INVALID_REQUEST, "nats_public_key: the public form of a user nkey (U…) is expected")
    try:
        seal_key = base64.b64decode(text("seal_public_key"), validate=True)
    except (ValueError, binascii.Error):
        seal_key = b""
    if len(seal_key) != SEAL_KEY_BYTES:
        raise Refused(RefusalCode.INVALID_REQUEST, "seal_public_key: base64 of 32 bytes is expected")
    serial, software = text("serial_number", False), text("software_version", False)
    if serial and not SERIAL.fullmatch(serial):
        raise Refused(RefusalCode.INVALID_REQUEST, "serial_number: 1 to 20 digits are expected")
    if len(software) > SOFTWARE_MAX:
        raise Refused(RefusalCode.INVALID_REQUEST, f"software_version: at most {SOFTWARE_MAX} characters")
    return EnrolRequest(device_id, token, nats_key, seal_key, serial, software)


def token_hash(token: str) -> str:
    """What is kept of a bundle's token."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_token(token: str, kept_hash: str | None, expires: datetime | None, enrolled: bool, now: datetime) -> None:
    """Raises Refused unless this token enrols its device now. `kept_hash` is None where there is no such device."""
    if not hmac.compare_digest(token_hash(token), kept_hash or token_hash("")):
        # The same words for a device that is not there: nobody learns which ids exist.
        raise Refused(RefusalCode.TOKEN_INVALID, "the token does not belong to this device: use its newest bundle")
    if enrolled:
        raise Refused(
            RefusalCode.ALREADY_ENROLLED,
            "the bundle was used already; a bundle works once: delete the device and provision it again",
        )
    if expires is None or now >= expires:
        raise Refused(
            RefusalCode.TOKEN_EXPIRED, "the bundle has expired: delete the device, provision it again and enrol at once"
        )


def device_viewer_key(root: bytes, device_id: str) -> bytes:
    """The viewer key of one device, 32 bytes: it follows from the root key and is stored nowhere."""
    return hmac.new(root, f"viewer {device_id}".encode(), hashlib.sha256).digest()


# --- a device's signed requests ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SignedBy:
    """An Authorization header, read; not checked yet."""

    device_id: str
    seconds: int
    signature: bytes


def parse_authorization(header: str) -> SignedBy:
    """Reads `Belvedere-Device <device id>:<unix seconds>:<base64 signature>`. Raises Refused(UNAUTHENTICATED)."""
    scheme, _, rest = header.partition(" ")
    parts = rest.split(":")
    try:
        if scheme != SIGNATURE_SCHEME or len(parts) != 3:
            raise ValueError
        return SignedBy(parts[0], int(parts[1]), base64.b64decode(parts[2], validate=True))
    except (ValueError, binascii.Error):
        raise Refused(
            RefusalCode.UNAUTHENTICATED,
            f"Authorization: {SIGNATURE_SCHEME} <device id>:<seconds>:<signature> is needed",
        ) from None


def check_signature(signed: SignedBy, public_key: str, method: str, path: str, now_s: float) -> None:
    """Raises Refused(UNAUTHENTICATED) unless the device's key signed this request within the allowed skew."""
    if abs(now_s - signed.seconds) > SIGNATURE_SKEW_S:
        raise Refused(
            RefusalCode.UNAUTHENTICATED,
            f"the request was signed {abs(now_s - signed.seconds):.0f} s away from now: set the appliance's clock",
        )
    if not public_key or not jwt.verify(public_key, f"{method} {path} {signed.seconds}".encode(), signed.signature):
        raise Refused(RefusalCode.UNAUTHENTICATED, "the signature is not that of an enrolled device")


_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, end excluded) of a Range header; None for the whole. One range only; others are ignored, as RFC 9110
    allows. Raises Refused(RANGE_INVALID) where nothing of it exists."""
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= size or start >= end:
        raise Refused(RefusalCode.RANGE_INVALID, f"the range is not within the {size} bytes")
    return start, end


def lease_end(now: datetime, lease_s: float) -> datetime:
    """When a lease given now ends, in whole seconds."""
    return (now + timedelta(seconds=lease_s)).replace(microsecond=0)
