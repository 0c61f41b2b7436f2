"""Secrets at rest, and session tokens: both sealed with one key that lies beside the database, not in it.

SigV4 needs the secrets themselves, a hash would not do. A session token carries its session, sealed: temporary credentials
need no row, and nothing has to be cleaned up.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random

from belvedere.bus.keyring import write_secret
from belvedere.chassis.errors import Denied
from belvedere.chassis.secret import Secret
from belvedere.chassis.settings import SettingError

KEY_FILE = "identity.key"
_URLSAFE = str.maketrans("-_", "+/")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True)
class Session:
    """A role in use, with its temporary credentials."""

    access_key_id: str
    secret: Secret[str]
    account: str
    role: str
    role_id: str
    session: str
    expires: datetime
    instance: str = ""
    """The application instance it was given to; "" for what AssumeRole gave."""


@dataclass(frozen=True)
class Bearer:
    """A user's token for gRPC over TCP."""

    account: str
    user: str
    user_id: str
    made: datetime
    expires: datetime


BEARER_PREFIX = "bvd_"
"""So that scanners for leaked secrets know one when they see it."""


class Vault:
    """Seals and opens. The key is read, or made, when it is first needed."""

    def __init__(self, folder: Path, key: Secret[str] | None = None) -> None:
        """`folder`: where the key file is (0700). `key`: base64 of 32 bytes, in place of the file."""
        self._path = folder / KEY_FILE
        self._given = key
        self._box: SecretBox | None = None

    def seal(self, secret: Secret[str]) -> bytes:
        """A secret as it may lie in the database."""
        return bytes(self._opened().encrypt(secret.reveal().encode()))

    def unseal(self, sealed: bytes) -> Secret[str]:
        """The secret. Raises SettingError where another key sealed it."""
        try:
            return Secret(self._opened().decrypt(sealed).decode())
        except CryptoError as error:
            raise SettingError(
                "BELVEDERE_IDENTITY_KEY", f"the access keys are sealed with another key than {self._path.name}"
            ) from error

    def token(self, session: Session) -> str:
        """The session token of temporary credentials."""
        plain = json.dumps(
            {
                "k": session.access_key_id,
                "s": session.secret.reveal(),
                "a": session.account,
                "r": session.role,
                "i": session.role_id,
                "n": session.session,
                "p": session.instance,
                "e": int(session.expires.timestamp()),
            }
        )
        return base64.b64encode(bytes(self._opened().encrypt(plain.encode()))).decode()

    def session(self, token: str) -> Session:
        """The session that a token carries, expired or not. Raises Denied for one that this key did not make."""
        plain = self._plain(token, "The security token included in the request is invalid.")
        if "k" not in plain:
            raise Denied("The security token included in the request is invalid.")
        return Session(
            access_key_id=plain["k"],
            secret=Secret(plain["s"]),
            account=plain["a"],
            role=plain["r"],
            role_id=plain["i"],
            session=plain["n"],
            expires=datetime.fromtimestamp(plain["e"], UTC),
            instance=plain.get("p", ""),
        )

    def bearer_token(self, bearer: Bearer) -> str:
        """The text of a bearer token."""
        plain = {
            "b": bearer.user,
            "a": bearer.account,
            "i": bearer.user_id,
            "m": bearer.made.timestamp(),
            "e": int(bearer.expires.timestamp()),
        }
        return BEARER_PREFIX + base64.urlsafe_b64encode(self._opened().encrypt(json.dumps(plain).encode())).decode()

    def bearer(self, token: str) -> Bearer:
        """What a bearer token says, expired or not. Raises Denied for one that this key did not make."""
        wrong = "The bearer token is not valid: make one with `belvedere token create`."
        if not token.startswith(BEARER_PREFIX):
            raise Denied(wrong)
        plain = self._plain(token.removeprefix(BEARER_PREFIX).translate(_URLSAFE), wrong)
        if "b" not in plain:
            raise Denied(wrong)
        made, expires = (datetime.fromtimestamp(plain[name], UTC) for name in ("m", "e"))
        return Bearer(plain["a"], plain["b"], plain["i"], made, expires)

    def _plain(self, token: str, wrong: str) -> dict[str, Any]:
        """What was sealed as `token`, standard base64. Raises Denied(wrong)."""
        try:
            plain = json.loads(self._opened().decrypt(base64.b64decode(token, validate=True)))
        except (CryptoError, ValueError, TypeError) as error:
            raise Denied(wrong) from error
        return dict(plain)

    def _opened(self) -> SecretBox:
        if self._box is None:
            self._box = SecretBox(self._key())
        return self._box

    def _key(self) -> bytes:
        if self._given:
            try:
                key = base64.b64decode(self._given.reveal(), validate=True)
            except ValueError as error:
                raise SettingError("BELVEDERE_IDENTITY_KEY", "is not base64") from error
            if len(key) != SecretBox.KEY_SIZE:
                raise SettingError("BELVEDERE_IDENTITY_KEY", f"must have {SecretBox.KEY_SIZE} bytes")
            return key
        if not self._path.exists():
            write_secret(self._path, random(SecretBox.KEY_SIZE))
        return self._path.read_bytes()


def unique_id(prefix: str, length: int) -> str:
    """`prefix` and `length` random letters, as AWS's unique ids (AIDA…, AROA…) and key ids (AKIA…, ASIA…) have them."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(length))


def new_secret_key() -> Secret[str]:
    """A secret access key: 40 characters, 240 random bits."""
    return Secret(base64.b64encode(random(30)).decode())


def fingerprint(token: str) -> str:
    """What the database keeps of a token that only has to be recognised."""
    return hashlib.sha256(token.encode()).hexdigest()
