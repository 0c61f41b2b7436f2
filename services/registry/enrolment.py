"""Enrolment and leases: how an appliance gets its identity, keeps it, and proves it.

Knows the device table and the issuer; HTTP is `device_port`'s, the bus `presence`'s business.
"""

from __future__ import annotations

import base64
import io
import json
import secrets
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from belvedere.bus.keyring import write_secret
from belvedere.chassis import outbox
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Unavailable
from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret
from belvedere.chassis.settings import SettingError
from services.registry import events, rules
from services.registry.issuing import Issuer, Lease
from services.registry.rules import EnrolRequest, Provisioning, RefusalCode, Refused
from services.registry.settings import Settings
from services.registry.store import DeletedDeviceRow, DeviceRow

KEY_FILE = "registry.key"
KEY_BYTES = 32
TOKEN_BYTES = 32

log = get_logger(__name__)


class Addresses:
    """Where an appliance finds the cloud side, and how it knows it."""

    def __init__(self, host: str, devices_port: int, gateway_port: int, leaf_urls: list[str], ca: Path) -> None:
        shown = f"[{host}]" if ":" in host else host
        self.device_url = f"https://{shown}:{devices_port}"
        self.gateway_url = f"http://{shown}:{gateway_port}"
        self.leaf_urls = leaf_urls
        self._ca = ca

    def ca_pem(self) -> bytes:
        """The certificate of the hub's own authority."""
        return self._ca.read_bytes()


def viewer_root(folder: Path, given: Secret[str] | None) -> bytes:
    """The key that viewer keys follow from: the setting, else the file in `folder`, made if it is not there."""
    if given:
        try:
            key = base64.b64decode(given.reveal(), validate=True)
        except ValueError as error:
            raise SettingError("BELVEDERE_REGISTRY_VIEWER_KEY", "is not base64") from error
        if len(key) != KEY_BYTES:
            raise SettingError("BELVEDERE_REGISTRY_VIEWER_KEY", f"must have {KEY_BYTES} bytes")
        return key
    path = folder / KEY_FILE
    if not path.exists():
        write_secret(path, secrets.token_bytes(KEY_BYTES))
    return path.read_bytes()


def new_token() -> str:
    """A bundle's token: 256 random bits."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def bundle(row: DeviceRow, token: str, addresses: Addresses) -> bytes:
    """The ZIP that ProvisionDevice answers with: config.json and ca.pem."""
    config = {
        "device_id": row.device_id,
        "device_name": row.name,
        "enrol_url": f"{addresses.device_url}/enrol",
        "token": token,
        "expires_at": row.token_expires.isoformat(),
        "ca_pem": "ca.pem",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(config, indent=2))
        archive.writestr("ca.pem", addresses.ca_pem())
    return packed.getvalue()


class Enrolment:
    """Gives identities, renews them, recognises them."""

    def __init__(
        self,
        database: Database,
        issuer: Issuer,
        settings: Settings,
        addresses: Addresses,
        viewer_key: Callable[[str], bytes],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._settings = settings
        self._addresses = addresses
        self._viewer_key = viewer_key
        self._clock = clock

    async def enrol(self, request: EnrolRequest) -> dict[str, Any]:
        """The answer to POST /enrol. Raises Refused."""
        row = await self._find(request.device_id)
        self._check(request, row)
        assert row is not None
        # Before the token is used up: should the hub be away, the appliance can come again with the same bundle.
        try:
            await self._issuer.open_account(row.device_id, row.account_public_key)
        except Unavailable as error:
            raise Refused(RefusalCode.UNAVAILABLE, error.message) from error
        now = self._clock()
        expires = rules.lease_end(now, self._settings.lease_s)
        async with self._database.session() as session, session.begin():
            row = await session.get(DeviceRow, request.device_id)
            self._check(request, row)
            assert row is not None
            row.nats_public_key = request.nats_public_key
            row.seal_public_key = request.seal_public_key
            row.serial_number = request.serial_number
            row.software_version = request.software_version
            row.provisioning = Provisioning.PENDING.value
            row.lease_expires = expires
            row.updated = now
            session.add(row)
            outbox.add(session, events.device("enrolled", row))
        log.info("device enrolled", device_id=row.device_id, name=row.name)
        lease = self._issuer.lease(row.device_id, row.account_public_key, row.nats_public_key, expires)
        return {
            "account_id": row.account,
            "device_id": row.device_id,
            "region": row.region,
            **_lease(lease),
            "account_public_key": row.account_public_key,
            "leaf_urls": self._addresses.leaf_urls,
            "device_url": self._addresses.device_url,
            "gateway_url": self._addresses.gateway_url,
            "viewer_key": base64.b64encode(self._viewer_key(row.device_id)).decode(),
            "log_group": f"/aws/panorama/devices/{row.device_id}",
        }

    async def renew(self, device_id: str) -> dict[str, Any]:
        """A new lease for a device that was recognised, and where the gateway is by now. Raises Refused."""
        expires = rules.lease_end(self._clock(), self._settings.lease_s)
        async with self._database.session() as session, session.begin():
            row = await session.get(DeviceRow, device_id)
            if row is None or not row.enrolled:
                raise Refused(RefusalCode.UNAUTHENTICATED, "there is no such device: it was deleted")
            row.lease_expires = expires
            session.add(row)
        lease = self._issuer.lease(row.device_id, row.account_public_key, row.nats_public_key, expires)
        return {**_lease(lease), "gateway_url": self._addresses.gateway_url}

    async def authenticate(self, authorization: str, method: str, path: str) -> str:
        """The id of the device that signed this request. Raises Refused: UNAUTHENTICATED, and DEVICE_DELETED to the
        appliance of a device that was deleted, which stops for that: nobody else is told so."""
        signed = rules.parse_authorization(authorization)
        async with self._database.session(read_only=True) as session:
            row = await session.get(DeviceRow, signed.device_id)
            deleted = await session.get(DeletedDeviceRow, signed.device_id) if row is None else None
        known = row or deleted
        key = known.nats_public_key if known is not None else ""
        rules.check_signature(signed, key, method, path, self._clock().timestamp())
        if deleted is not None:
            raise Refused(
                RefusalCode.DEVICE_DELETED, f"{deleted.device_id} was deleted at {deleted.deleted:%Y-%m-%dT%H:%M:%SZ}"
            )
        return signed.device_id

    def _check(self, request: EnrolRequest, row: DeviceRow | None) -> None:
        kept = row.token_hash if row is not None else None
        expires = row.token_expires if row is not None else None
        rules.check_token(request.token, kept, expires, row is not None and row.enrolled, self._clock())

    async def _find(self, device_id: str) -> DeviceRow | None:
        async with self._database.session(read_only=True) as session:
            return await session.get(DeviceRow, device_id)


def _lease(lease: Lease) -> dict[str, Any]:
    return {"user_jwt": lease.user_jwt, "lease_expires": lease.expires.isoformat()}
