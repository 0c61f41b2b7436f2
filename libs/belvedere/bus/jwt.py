"""Operator, account and user JWTs of NATS, made and read in Python. Pure but for the randomness of `new_key`.

The claims are those of `nats-io/jwt` version 2; which of them matter here, and why a device has an account of its own,
is in docs/decisions.md. This module must not know where keys are kept or how a server is reached.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import nkeys

from belvedere.bus import subjects
from belvedere.bus.errors import InvalidDocument
from belvedere.chassis.secret import Secret

UNLIMITED = -1
ALGORITHM = "ed25519-nkey"

# A device: one leaf link and its successor while it renews, a few connections for tools, no storage on the hub.
DEVICE_LEAFS = 2
DEVICE_CONNECTIONS = 4
DEVICE_SUBSCRIPTIONS = 200
DEVICE_PAYLOAD_BYTES = 1024 * 1024


class Kind(IntEnum):
    """What a key is for: the first letter of its public form."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


@dataclass(frozen=True)
class Key:
    """An nkey pair. `public` is its name (`O…`, `A…`, `U…`); `seed` (`S…`) signs and is never logged."""

    public: str
    seed: Secret[str]

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature (64 bytes) over `data`."""
        return bytes(nkeys.from_seed(bytearray(self.seed.reveal().encode())).sign(data))


def new_key(kind: Kind) -> Key:
    """A fresh key pair."""
    return key_from_seed(nkeys.encode_seed(os.urandom(32), int(kind)).decode())


def key_from_seed(seed: str) -> Key:
    """The key pair of a seed; ValueError if it is none."""
    try:
        pair = nkeys.from_seed(bytearray(seed.strip().encode()))
        return Key(pair.public_key.decode(), Secret(seed.strip()))
    except (nkeys.NkeysError, ValueError, binascii.Error) as error:
        raise ValueError("this is no nkey seed") from error


def is_public_key(value: str, kind: Kind) -> bool:
    """Whether `value` is the public form of a key of this kind, checksum included."""
    try:
        raw = base64.b32decode(value)
    except (ValueError, binascii.Error):
        return False
    return (
        len(raw) == 35
        and raw[0] == int(kind)
        and nkeys.crc16(bytearray(raw[:-2])) == int.from_bytes(raw[-2:], "little")
    )


def verify(public: str, data: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `data` was made with the private half of `public`."""
    import nacl.exceptions
    import nacl.signing

    try:
        raw = base64.b32decode(public)
        nacl.signing.VerifyKey(raw[1:33]).verify(data, signature)
    except (nacl.exceptions.CryptoError, ValueError, TypeError, binascii.Error):
        return False
    return True


def encode(
    subject: str, name: str, claims: Mapping[str, Any], signer: Key, *, issued_at: int, expires_at: int | None = None
) -> str:
    """A signed JWT about `subject` (a public key). Times in unix seconds."""
    body: dict[str, Any] = {
        "iat": issued_at,
        "iss": signer.public,
        "name": name,
        "sub": subject,
        "nats": {**claims, "version": 2},
    }
    if expires_at is not None:
        body["exp"] = expires_at
    body["jti"] = base64.b32encode(hashlib.sha256(_json(body)).digest()).rstrip(b"=").decode()
    front = f"{_b64(_json({'typ': 'JWT', 'alg': ALGORITHM}))}.{_b64(_json(body))}"
    return f"{front}.{_b64(signer.sign(front.encode()))}"


def decode(token: str) -> dict[str, Any]:
    """The claims of a JWT whose signature is that of the issuer it names; InvalidDocument otherwise.

    The caller decides whether that issuer is one to trust.
    """
    parts = token.split(".")
    try:
        header, body = json.loads(_unb64(parts[0])), json.loads(_unb64(parts[1]))
        signature, issuer = _unb64(parts[2]), str(body["iss"])
    except (ValueError, IndexError, KeyError, TypeError, binascii.Error) as error:
        raise InvalidDocument("this is no NATS JWT") from error
    if header.get("alg") != ALGORITHM or not verify(issuer, f"{parts[0]}.{parts[1]}".encode(), signature):
        raise InvalidDocument("the JWT is not signed by the issuer it names")
    return dict(body)


def operator_claims(*, system_account: str, signing_keys: Sequence[str]) -> dict[str, Any]:
    """With strict usage the operator's own key signs nothing but this: it can be kept offline."""
    return {
        "type": "operator",
        "system_account": system_account,
        "signing_keys": list(signing_keys),
        "strict_signing_key_usage": True,
    }


def account_claims(
    *,
    signing_keys: Sequence[str],
    limits: Mapping[str, Any],
    imports: Sequence[Mapping[str, Any]] = (),
    exports: Sequence[Mapping[str, Any]] = (),
    revocations: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """`revocations`: user public key → unix seconds; that key's JWTs issued until then are dead, at once."""
    return {
        "type": "account",
        "signing_keys": list(signing_keys),
        "limits": dict(limits),
        "imports": [dict(item) for item in imports],
        "exports": [dict(item) for item in exports],
        "revocations": dict(revocations or {}),
        "default_permissions": {"pub": {}, "sub": {}},
    }


def user_claims(*, issuer_account: str, connection_types: Sequence[str] = ()) -> dict[str, Any]:
    """A user of `issuer_account`, whose signing key signs the JWT. No connection types: any."""
    claims: dict[str, Any] = {
        "type": "user",
        "issuer_account": issuer_account,
        "pub": {},
        "sub": {},
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
    }
    if connection_types:
        claims["allowed_connection_types"] = list(connection_types)
    return claims


def system_account_claims(signing_key: str) -> dict[str, Any]:
    """The account that may push other accounts and hears who connects."""
    return account_claims(signing_keys=[signing_key], limits=_limits(jetstream=False))


def fleet_account_claims(signing_key: str) -> dict[str, Any]:
    """The account of the services: owns the streams and buckets, exports what devices import."""
    return account_claims(
        signing_keys=[signing_key],
        limits=_limits(jetstream=True),
        exports=[
            {"name": "up", "subject": "up.*.>", "type": "service"},
            {"name": "target", "subject": _target_get("*"), "type": "service"},
            {"name": "reported", "subject": f"$KV.{subjects.REPORTED_BUCKET}.*", "type": "service"},
            {"name": "answers", "subject": "rsp.*.*", "type": "service"},
            {"name": "commands", "subject": "dev.*.>", "type": "stream"},
        ],
    )


def device_account_claims(
    device_id: str,
    *,
    fleet_account: str,
    signing_key: str,
    revocations: Mapping[str, int] | None = None,
    closed: bool = False,
) -> dict[str, Any]:
    """A device's own account: it imports its own subjects and nothing else. `closed`: a deleted device's, may do nothing."""

    def service(name: str, subject: str, local: str) -> dict[str, Any]:
        return {"name": name, "subject": subject, "local_subject": local, "account": fleet_account, "type": "service"}

    up, answers, commands = subjects.up_all(device_id), subjects.rsp_all(device_id), subjects.dev_all(device_id)
    imports = [
        service("up", up, up),
        service("target", _target_get(device_id), subjects.CTL_TARGET_GET),
        service("reported", subjects.kv_key(subjects.REPORTED_BUCKET, device_id), subjects.CTL_REPORTED_PUT),
        service("answers", answers, answers),
        {
            "name": "commands",
            "subject": commands,
            "local_subject": commands,
            "account": fleet_account,
            "type": "stream",
        },
    ]
    limits = _limits(jetstream=False) | {
        "leaf": 0 if closed else DEVICE_LEAFS,
        "conn": 0 if closed else DEVICE_CONNECTIONS,
        "subs": DEVICE_SUBSCRIPTIONS,
        "payload": DEVICE_PAYLOAD_BYTES,
        "exports": 0,
        "wildcards": False,
    }
    return account_claims(
        signing_keys=[signing_key], limits=limits, imports=[] if closed else imports, revocations=revocations
    )


def device_user_claims(device_account: str) -> dict[str, Any]:
    """The device's user: good for a leaf link and nothing else."""
    return user_claims(issuer_account=device_account, connection_types=["LEAFNODE"])


def creds_text(user_jwt: str, key: Key) -> str:
    """The text of a `.creds` file, as nats-server reads it for a leaf remote. A secret."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed.reveal()}\n------END USER NKEY SEED------\n"
    )


def _target_get(device_id: str) -> str:
    stream = subjects.kv_stream(subjects.TARGET_BUCKET)
    return subjects.js_direct_get(stream, f"$KV.{subjects.TARGET_BUCKET}.{device_id}")


def _limits(*, jetstream: bool) -> dict[str, Any]:
    names = ("subs", "conn", "leaf", "imports", "exports", "data", "payload")
    limits: dict[str, Any] = dict.fromkeys(names, UNLIMITED) | {"wildcards": True}
    if jetstream:
        limits |= {"mem_storage": UNLIMITED, "disk_storage": UNLIMITED, "streams": UNLIMITED, "consumer": UNLIMITED}
    return limits


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
