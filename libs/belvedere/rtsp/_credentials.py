"""Answers to a server's challenges: digest (RFC 7616, RFC 2069) and basic (RFC 7617). The other side is in `_auth`.

No I/O. Passwords leave it only inside an `Authorization` header.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from belvedere.secret import Secret

from ._auth import HASHES, PARAMETER

_SCHEME = re.compile(r"(?:^|,)\s*(Digest|Basic)(?=\s|$)", re.IGNORECASE)


@dataclass(slots=True)
class Challenge:
    """One `WWW-Authenticate` that can be answered."""

    algorithm: str
    """As sent back: SHA-256, MD5, either with -sess; "Basic"."""
    realm: str = ""
    nonce: str = ""
    opaque: str | None = None
    qop: bool = False
    """Whether qop=auth was offered; without it the answer is RFC 2069's."""
    stale: bool = False
    explicit: bool = False
    """Whether the server named the algorithm: old ones do not know the parameter."""
    uses: int = 0
    accepted: bool = False
    """An answer to it was taken before: if it is not any more, its nonce has become too old."""

    @property
    def strength(self) -> int:
        return 0 if self.algorithm == "Basic" else 2 if self.algorithm.startswith("SHA-256") else 1


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges in `WWW-Authenticate` headers that can be answered, the strongest first."""
    found = []
    for header in headers:
        starts = [*_SCHEME.finditer(_without_quoted(header))]
        ends = [*(match.start() for match in starts[1:]), len(header)]
        for match, end in zip(starts, ends, strict=False):  # without a match there is an end too many
            text = header[match.end() : end]
            challenge = _challenge(match[1].lower(), text)
            if challenge is not None:
                found.append(challenge)
    return sorted(found, key=lambda challenge: -challenge.strength)


def _without_quoted(header: str) -> str:
    """The same text, as long, with nothing inside its quotes: a realm may be called "Basic"."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', lambda match: '"' + "_" * (len(match[0]) - 2) + '"', header)


def _challenge(scheme: str, text: str) -> Challenge | None:
    given = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in PARAMETER.findall(text)}
    if scheme == "basic":
        return Challenge("Basic", given.get("realm", ""))
    algorithm = given.get("algorithm", "MD5").upper()
    offered = [offer.strip().lower() for offer in given.get("qop", "").split(",") if offer.strip()]
    if algorithm.removesuffix("-SESS") not in HASHES or "nonce" not in given or (offered and "auth" not in offered):
        return None
    return Challenge(
        algorithm=algorithm,
        realm=given.get("realm", ""),
        nonce=given["nonce"],
        opaque=given.get("opaque"),
        qop=bool(offered),
        stale=given.get("stale", "").lower() == "true",
        explicit="algorithm" in given,
    )


class Credentials:
    """A user name and a password, and the challenge that they answer now."""

    def __init__(
        self, username: Secret[str], password: Secret[str], on_answer: Callable[[], None] | None = None
    ) -> None:
        """`on_answer` is called whenever a challenge is worth an answer."""
        self._on_answer = on_answer
        self._username = username
        self._password = password
        self._challenge: Challenge | None = None

    def __bool__(self) -> bool:
        return bool(self._username or self._password)

    def challenged(self, headers: Sequence[str], *, basic_allowed: bool) -> bool:
        """A 401 has come: whether it is worth asking again. It is not where the same password was refused already."""
        before = self._challenge
        usable = [one for one in parse_challenges(headers) if basic_allowed or one.algorithm != "Basic"]
        if not self or not usable:
            return False
        chosen = usable[0]
        if before is not None and not (chosen.stale or before.accepted):
            return False
        self._challenge = chosen
        if self._on_answer is not None:
            self._on_answer()
        return True

    def accepted(self) -> None:
        """The last answer was taken."""
        if self._challenge is not None and self._challenge.uses:
            self._challenge.accepted = True

    def forget(self) -> None:
        """Another server: its challenges are its own."""
        self._challenge = None

    def header(self, method: str, uri: str) -> str | None:
        """The value of `Authorization`; None before the first challenge."""
        challenge = self._challenge
        if challenge is None:
            return None
        challenge.uses += 1
        if challenge.algorithm == "Basic":
            login = f"{self._username.reveal()}:{self._password.reveal()}".encode()
            return "Basic " + base64.b64encode(login).decode()
        return self._digest(challenge, method, uri)

    def _digest(self, challenge: Challenge, method: str, uri: str) -> str:
        hashed = HASHES[challenge.algorithm.removesuffix("-SESS")]

        def digest(value: str) -> str:
            return hashed(value.encode("utf-8", "surrogateescape")).hexdigest()

        count, own = f"{challenge.uses:08x}", secrets.token_hex(8)
        secret = digest(f"{self._username.reveal()}:{challenge.realm}:{self._password.reveal()}")
        if challenge.algorithm.endswith("-SESS"):
            secret = digest(f"{secret}:{challenge.nonce}:{own}")
        middle = f"{challenge.nonce}:{count}:{own}:auth" if challenge.qop else challenge.nonce
        response = digest(f"{secret}:{middle}:{digest(f'{method}:{uri}')}")
        parts = [
            f"username={_quoted(self._username.reveal())}",
            f"realm={_quoted(challenge.realm)}",
            f"nonce={_quoted(challenge.nonce)}",
            f"uri={_quoted(uri)}",
            f'response="{response}"',
        ]
        if challenge.explicit:
            parts.append(f"algorithm={challenge.algorithm}")
        if challenge.opaque is not None:
            parts.append(f"opaque={_quoted(challenge.opaque)}")
        if challenge.qop:
            parts.append(f"qop=auth, nc={count}")
        if challenge.qop or challenge.algorithm.endswith("-SESS"):
            parts.append(f'cnonce="{own}"')
        return "Digest " + ", ".join(parts)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
