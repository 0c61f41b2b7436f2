"""Enrolment: the ZIP of ProvisionDevice and two fresh key pairs become an identity in DATA/device.

Done once; a data folder that has a device already is left alone, so that starting again with the same bundle is
harmless. The token travels over HTTPS to the address in the bundle, checked against the bundle's own CA.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from belvedere.chassis.secret import Secret
from edge.agent.device import CA, CONFIG, DeviceConfig, DeviceKeys, write_private
from edge.agent.errors import BundleError, EnrolmentError

log = structlog.get_logger(__name__)

ENROL_TIMEOUT_S = 20.0
BUNDLE_FILE_LIMIT_BYTES = 64 * 1024
"""Per file in the bundle; ours are under 4 KiB."""


@dataclass(frozen=True)
class Bundle:
    """What ProvisionDevice's ZIP holds."""

    device_id: str
    device_name: str
    enrol_url: str
    token: Secret[str]
    expires_at: datetime
    ca_pem: bytes

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Raises BundleError for a file that is no bundle, or lacks something."""
        try:
            with zipfile.ZipFile(path) as archive:
                config = json.loads(_member(archive, "config.json"))
                return cls(
                    device_id=str(config["device_id"]),
                    device_name=str(config["device_name"]),
                    enrol_url=str(config["enrol_url"]),
                    token=Secret(str(config["token"])),
                    expires_at=_instant(str(config["expires_at"])),
                    ca_pem=_member(archive, "ca.pem"),
                )
        except FileNotFoundError:
            raise BundleError(
                f"no bundle at {path}: save Certificates of ProvisionDevice there (base64 decoded)"
            ) from None
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path} is not a provisioning bundle ({error}): provision the device again") from error


def is_enrolled(folder: Path) -> bool:
    return (folder / CONFIG).exists()


async def enrol(bundle: Bundle, folder: Path, *, serial_number: str, software_version: str) -> DeviceConfig:
    """Exchanges the bundle's token for an identity and writes it to `folder`. Raises EnrolmentError."""
    if is_enrolled(folder):
        config = DeviceConfig.load(folder)
        if config.device_id != bundle.device_id:
            raise EnrolmentError(
                f"this data folder belongs to {config.device_id}, the bundle to {bundle.device_id}: use another folder"
            )
        log.info("already enrolled", device_id=config.device_id)
        return config
    if datetime.now(UTC) >= bundle.expires_at:
        raise EnrolmentError(
            f"the bundle expired at {bundle.expires_at.isoformat()}: delete the device and provision it again"
        )
    keys = DeviceKeys.load_or_make(folder)
    answer = await _ask(bundle, keys, serial_number=serial_number, software_version=software_version)
    write_private(folder / CA, bundle.ca_pem)
    write_private(folder / "device.1.creds", credentials_file(str(answer["user_jwt"]), keys))
    config = DeviceConfig(
        device_id=bundle.device_id,
        device_name=bundle.device_name,
        account_id=str(answer["account_id"]),
        region=str(answer["region"]),
        account_public_key=str(answer["account_public_key"]),
        leaf_urls=tuple(str(url) for url in answer["leaf_urls"]),
        device_url=str(answer["device_url"]),
        gateway_url=str(answer["gateway_url"]),
        viewer_key=str(answer["viewer_key"]),
        log_group=str(answer["log_group"]),
        lease_expires=str(answer["lease_expires"]),
    )
    config.save(folder)
    log.info("enrolled", device_id=config.device_id, lease_expires=config.lease_expires)
    return config


async def _ask(bundle: Bundle, keys: DeviceKeys, *, serial_number: str, software_version: str) -> dict[str, Any]:
    body = {
        "device_id": bundle.device_id,
        "token": bundle.token.reveal(),
        "nats_public_key": keys.nats_public_key,
        "seal_public_key": base64.b64encode(keys.seal_public_key).decode(),
        "serial_number": serial_number,
        "software_version": software_version,
    }
    tls = ssl.create_default_context(cadata=bundle.ca_pem.decode())
    try:
        async with (
            asyncio.timeout(ENROL_TIMEOUT_S),
            aiohttp.ClientSession() as session,
            session.post(bundle.enrol_url, json=body, ssl=tls) as response,
        ):
            text = await response.text()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise EnrolmentError(
            f"no answer from {bundle.enrol_url} ({error or type(error).__name__}): is the cloud side up and reachable from here?"
        ) from error
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        raise EnrolmentError(f"{bundle.enrol_url} answered {response.status} with something that is no JSON") from None
    if response.status != 200:
        raise EnrolmentError(f"enrolment refused: {_refusal(answer)}")
    return answer


def _refusal(answer: dict[str, Any]) -> str:
    error = answer.get("error")
    return str(error.get("message", error)) if isinstance(error, dict) else str(error or answer)


def credentials_file(user_jwt: str, keys: DeviceKeys) -> bytes:
    """A NATS credentials file: the JWT and the seed, in the framing that nats-server reads."""
    seed = keys.nkey_seed.reveal().decode()
    return (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    ).encode()


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > BUNDLE_FILE_LIMIT_BYTES:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
