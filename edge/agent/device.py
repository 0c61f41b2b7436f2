"""Who this appliance is: its identity, its keys, its addresses, kept in DATA/device.

Private keys are made here and never leave the folder. This module knows files and signatures, no network.
"""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nacl.public
import nkeys

from belvedere.chassis.secret import Secret
from edge.agent.errors import NotEnrolled

CONFIG = "config.json"
NKEY_SEED = "device.nk"
SEAL_KEY = "seal.key"
CA = "ca.pem"


@dataclass(frozen=True)
class DeviceConfig:
    """What enrolment told us, as kept in DATA/device/config.json."""

    device_id: str
    device_name: str
    account_id: str
    region: str
    account_public_key: str
    """NATS account (A…) that is this device's own."""
    leaf_urls: tuple[str, ...]
    device_url: str
    """HTTPS base of the registry's device port, for assets."""
    gateway_url: str
    """Where applications' AWS calls go."""
    viewer_key: str
    """base64; what viewer tokens for this appliance's video are signed with."""
    log_group: str
    lease_expires: str
    """ISO 8601; renewed well before."""
    creds_generation: int = 1
    """Number in device.<n>.creds: a new file name is what makes nats-server take renewed credentials."""

    @property
    def local(self) -> bool:
        """Whether it belongs to no cloud side."""
        return not self.leaf_urls

    @classmethod
    def load(cls, folder: Path) -> DeviceConfig:
        try:
            raw: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        except FileNotFoundError:
            raise NotEnrolled(
                f"{folder} holds no device: start with --bundle and the ZIP from ProvisionDevice"
            ) from None
        raw["leaf_urls"] = tuple(raw["leaf_urls"])
        return cls(**raw)

    def save(self, folder: Path) -> None:
        write_private(folder / CONFIG, json.dumps(asdict(self), indent=2).encode())


@dataclass(frozen=True)
class DeviceKeys:
    """The appliance's two key pairs: Ed25519 (NATS and request signatures) and X25519 (sealed credentials)."""

    nkey_seed: Secret[bytes]
    seal_private: Secret[bytes]

    @classmethod
    def load_or_make(cls, folder: Path) -> DeviceKeys:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        seed_file, seal_file = folder / NKEY_SEED, folder / SEAL_KEY
        if not seed_file.exists():
            write_private(seed_file, nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        if not seal_file.exists():
            write_private(seal_file, bytes(nacl.public.PrivateKey.generate()))
        return cls(Secret(seed_file.read_bytes()), Secret(seal_file.read_bytes()))

    @property
    def nats_public_key(self) -> str:
        return str(nkeys.from_seed(bytearray(self.nkey_seed.reveal())).public_key.decode())

    @property
    def seal_public_key(self) -> bytes:
        return bytes(nacl.public.PrivateKey(self.seal_private.reveal()).public_key)

    def authorization(self, device_id: str, method: str, path: str) -> str:
        """The Authorization header of one request to the registry's device port (docs/architecture.md §2)."""
        seconds = int(time.time())
        pair = nkeys.from_seed(bytearray(self.nkey_seed.reveal()))
        signature = base64.b64encode(pair.sign(f"{method} {path} {seconds}".encode())).decode()
        return f"Belvedere-Device {device_id}:{seconds}:{signature}"


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
