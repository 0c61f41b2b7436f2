"""Who may look: digest (RFC 7616, and RFC 2069 as old cameras' clients still send it) and basic (RFC 7617)
authentication.

Nonces hold their own time and are signed with the connection's key: nothing is stored, a nonce of another connection or
past its time is stale. No I/O; the clock is handed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from belvedere.chassis.secret import Secret

Scheme = Literal["SHA-256", "MD5", "Basic"]

NONCE_LIFETIME_S = 300.0
REALM = "belvedere"
HASHES = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
PARAMETER = re.compile(r'([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class AuthenticationFailed(Exception):
    """No, or not the right, credentials. `stale`: they were right, only the nonce was too old."""

    def __init__(self, stale: bool = False, attempted: bool = False) -> None:
        super().__init__("stale nonce" if stale else "authentication required")
        self.stale = stale
        self.attempted = attempted


class Authenticator:
    """Checks requests of one connection against `users`."""

    def __init__(
        self,
        users: Mapping[str, Secret[str]],
        schemes: Sequence[Scheme],
        *,
        clock: Callable[[], float] = time.monotonic,
        nonce_lifetime_s: float = NONCE_LIFETIME_S,
    ) -> None:
        self._users = users
        self._schemes = tuple(schemes)
        self._clock = clock
        self._lifetime = nonce_lifetime_s
        self._key = secrets.token_bytes(32)

    def challenges(self, stale: bool = False) -> list[tuple[str, str]]:
        """`WWW-Authenticate` headers, the strongest first; libavformat and GStreamer take the last digest they know."""
        headers = []
        for scheme in self._schemes:
            if scheme == "Basic":
                value = f'Basic realm="{REALM}"'
            else:
                value = f'Digest realm="{REALM}", nonce="{self._nonce()}", algorithm={scheme}, qop="auth"'
                value += ", stale=true" if stale else ""
            headers.append(("WWW-Authenticate", value))
        return headers

    def check(self, method: str, uri: str, authorization: str | None) -> str:
        """The user's name. Raises AuthenticationFailed."""
        if not authorization:
            raise AuthenticationFailed
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() == "basic" and "Basic" in self._schemes:
            return self._check_basic(rest.strip())
        if scheme.lower() == "digest":
            return self._check_digest(method, uri, rest)
        raise AuthenticationFailed(attempted=True)

    def _check_basic(self, encoded: str) -> str:
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise AuthenticationFailed(attempted=True) from error
        expected = self._users.get(user)
        given = password.encode()
        # Compared also for an unknown user, so that the time taken tells nothing about who exists.
        wanted = expected.reveal().encode() if expected else secrets.token_bytes(16)
        if not (hmac.compare_digest(wanted, given) and expected and colon):
            raise AuthenticationFailed(attempted=True)
        return user

    def _check_digest(self, method: str, uri: str, text: str) -> str:
        found = PARAMETER.findall(text)
        given = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in found}
        algorithm = given.get("algorithm", "MD5").upper()
        if algorithm not in self._schemes or algorithm not in HASHES:
            raise AuthenticationFailed(attempted=True)
        user, nonce = given.get("username", ""), given.get("nonce", "")
        expected = self._users.get(user)
        password = expected.reveal() if expected else secrets.token_hex(16)

        def digest(value: str) -> str:
            return HASHES[algorithm](value.encode()).hexdigest()

        secret = digest(f"{user}:{REALM}:{password}")
        asked = digest(f"{method}:{given.get('uri', '')}")
        with_qop = f"{nonce}:{given.get('nc', '')}:{given.get('cnonce', '')}:{given.get('qop', '')}"
        middle = with_qop if "qop" in given else nonce
        wanted = digest(f"{secret}:{middle}:{asked}").encode()
        right = hmac.compare_digest(wanted, given.get("response", "").lower().encode())
        if not (right and expected and given.get("realm") == REALM and _same_resource(given.get("uri", ""), uri)):
            raise AuthenticationFailed(attempted=True)
        if not self._fresh(nonce):
            raise AuthenticationFailed(stale=True)
        return user

    def _nonce(self) -> str:
        stamp = repr(self._clock())
        return base64.urlsafe_b64encode(f"{stamp}:{self._sign(stamp)}".encode()).decode()

    def _sign(self, stamp: str) -> str:
        return hmac.new(self._key, stamp.encode(), hashlib.sha256).hexdigest()[:32]

    def _fresh(self, nonce: str) -> bool:
        try:
            stamp, _, signature = base64.urlsafe_b64decode(nonce).decode("ascii").partition(":")
            age = self._clock() - float(stamp)
        except ValueError:  # also binascii.Error and UnicodeDecodeError
            return False
        return hmac.compare_digest(self._sign(stamp), signature) and 0 <= age <= self._lifetime


def _same_resource(claimed: str, requested: str) -> bool:
    """The digest's uri names what the request asks for; clients differ in the slash at the end and in giving the
    host.
    """
    return _bare(claimed) == _bare(requested)


def _bare(uri: str) -> str:
    without_host = re.sub(r"^rtsp[stu]?://[^/]*", "", uri, flags=re.IGNORECASE)
    return without_host.rstrip("/")
