"""The cloud side's NATS keys on disk, and the JWTs they sign.

    DATA/secrets/nats/   (0700, each file 0600)
        operator.nk operator-signing.nk                 issue accounts
        system.nk system-signing.nk system-user.nk      the account that pushes accounts and hears who connects
        fleet.nk fleet-signing.nk services-user.nk      the account of the services
        device-signing.nk                               one signing key, listed in every device's account

The keys are made at first start. It must not know a server or a connection; times are given to it, in unix seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from belvedere.bus import jwt
from belvedere.bus.client import Credentials
from belvedere.bus.jwt import Key, Kind

_FILES = {
    "operator": ("operator.nk", Kind.OPERATOR),
    "operator_signing": ("operator-signing.nk", Kind.OPERATOR),
    "system": ("system.nk", Kind.ACCOUNT),
    "system_signing": ("system-signing.nk", Kind.ACCOUNT),
    "system_user": ("system-user.nk", Kind.USER),
    "fleet": ("fleet.nk", Kind.ACCOUNT),
    "fleet_signing": ("fleet-signing.nk", Kind.ACCOUNT),
    "services_user": ("services-user.nk", Kind.USER),
    "device_signing": ("device-signing.nk", Kind.ACCOUNT),
}


@dataclass(frozen=True)
class Keyring:
    """All of them. Only the hub's process and the registry hold one; the other services get Credentials."""

    operator: Key
    operator_signing: Key
    system: Key
    system_signing: Key
    system_user: Key
    fleet: Key
    fleet_signing: Key
    services_user: Key
    device_signing: Key

    @classmethod
    def open(cls, secrets: Path) -> Keyring:
        """Reads the keys below the folder `secrets`, making those that are not there yet."""
        folder = secrets / "nats"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(**{name: _key(folder / file, kind) for name, (file, kind) in _FILES.items()})

    def operator_jwt(self, now: int) -> str:
        """What hub.conf holds of the operator."""
        claims = jwt.operator_claims(system_account=self.system.public, signing_keys=[self.operator_signing.public])
        return jwt.encode(self.operator.public, "belvedere", claims, self.operator, issued_at=now)

    def system_account_jwt(self, now: int) -> str:
        """The system account."""
        claims = jwt.system_account_claims(self.system_signing.public)
        return jwt.encode(self.system.public, "SYS", claims, self.operator_signing, issued_at=now)

    def fleet_account_jwt(self, now: int) -> str:
        """The account of the services."""
        claims = jwt.fleet_account_claims(self.fleet_signing.public)
        return jwt.encode(self.fleet.public, "FLEET", claims, self.operator_signing, issued_at=now)

    def device_account_jwt(
        self,
        device_id: str,
        account_public_key: str,
        now: int,
        *,
        revocations: Mapping[str, int] | None = None,
        closed: bool = False,
    ) -> str:
        """The account of one device; with `revocations` and `closed`, that of a deleted one."""
        claims = jwt.device_account_claims(
            device_id,
            fleet_account=self.fleet.public,
            signing_key=self.device_signing.public,
            revocations=revocations,
            closed=closed,
        )
        return jwt.encode(account_public_key, device_id, claims, self.operator_signing, issued_at=now)

    def device_user_jwt(
        self, device_id: str, account_public_key: str, user_public_key: str, now: int, expires_at: int
    ) -> str:
        """The lease of one device: good for a leaf link until `expires_at`."""
        claims = jwt.device_user_claims(account_public_key)
        return jwt.encode(user_public_key, device_id, claims, self.device_signing, issued_at=now, expires_at=expires_at)

    def services_credentials(self, now: int) -> Credentials:
        """For every service: account FLEET."""
        return self._user(self.services_user, self.fleet, self.fleet_signing, "services", now)

    def system_credentials(self, now: int) -> Credentials:
        """For the registry only: whoever holds these can lock every account out."""
        return self._user(self.system_user, self.system, self.system_signing, "registry", now)

    @staticmethod
    def _user(user: Key, account: Key, signer: Key, name: str, now: int) -> Credentials:
        claims = jwt.user_claims(issuer_account=account.public)
        return Credentials.of_key(user, jwt.encode(user.public, name, claims, signer, issued_at=now))


def _key(path: Path, kind: Kind) -> Key:
    if not path.exists():
        write_secret(path, jwt.new_key(kind).seed.reveal().encode() + b"\n")
    return jwt.key_from_seed(path.read_text())


def write_secret(path: Path, data: bytes) -> None:
    """Writes a file that only its owner reads, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
