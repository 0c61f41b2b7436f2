"""AWS Signature Version 4, the verifying side: header-signed requests and presigned URLs.

Pure: takes the request as it came and a signing key, and says who signed what and whether it holds. Knows nothing of
keys' owners, of HTTP servers, or of bodies beyond their hash. Source: AWS's public description of SigV4.

What a client sends again and again (credential, signed headers) is read once; every signature is calculated anew.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from services.gateway.errors import AuthError, AuthKind

ALGORITHM = "AWS4-HMAC-SHA256"
MISMATCH_TEXT = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and "
    "signing method. Consult the service documentation for details."
)
NO_DATE_TEXT = "The request needs an 'X-Amz-Date' or 'Date' header."
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
EXPIRES_MAX_S = 604_800
"""A presigned URL lives a week at most."""
UNSIGNED_HEADERS_ALLOWED = frozenset({"x-amz-user-agent"})
"""x-amz-* headers that clients add after signing."""

_FRONT = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<credential>[^,\s]+)\s*,\s*SignedHeaders=(?P<headers>[^,\s]+)\s*,\s*Signature="
)
_VALUE = re.compile(r"([0-9a-f]{64})\s*")
_CREDENTIAL = re.compile(
    r"(?P<key>[\w+=,.@-]{1,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]{1,64})/(?P<service>[a-z0-9.-]{1,64})/aws4_request"
)
_QUERY_SIGNS = re.compile(r"%|X-Amz-Algorithm|AWSAccessKeyId")
"""What a query has in which one of these names may stand, as it is or encoded."""
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_TOKEN = re.compile(r"[ -~]{0,4096}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
"""A path that is its own canonical form: nothing to encode, no `.` or `..` and nothing empty between its slashes."""
KEPT = 256
"""Credentials, lists of signed headers, stamps and queries that are not read again: a client sends the same ones all day."""
QUERY_KEPT_MAX = 512
"""Characters."""


@dataclass(eq=False, slots=True)
class HttpRequest:
    """What is signed, exactly as it came. Nobody changes it."""

    method: str
    path: str
    """Still percent-encoded."""
    query: str
    """Still percent-encoded, without `?`."""
    headers: Sequence[tuple[str, str]]
    """In order; names in lower case."""
    _named: Mapping[str, str] | None = field(default=None, init=False, repr=False)

    @classmethod
    def read(
        cls, method: str, path: str, query: str, headers: Sequence[tuple[str, str]], named: Mapping[str, str]
    ) -> HttpRequest:
        """One whose headers are known by name already."""
        made = cls(method, path, query, headers)
        made._named = named
        return made

    @property
    def named(self) -> Mapping[str, str]:
        """Headers by name, the values of one name joined with commas."""
        if self._named is None:
            found: dict[str, str] = {}
            for name, value in self.headers:
                found[name] = f"{found[name]},{value}" if name in found else value
            self._named = found
        return self._named

    def header(self, name: str) -> str | None:
        """The values of a header joined with commas; None where it is absent."""
        return self.named.get(name)


class Scope(NamedTuple):
    """For what a signing key is derived."""

    access_key_id: str
    date: str
    """YYYYMMDD"""
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class Signature(NamedTuple):
    """A request's signature, taken apart but not yet verified."""

    scope: Scope
    signed_headers: tuple[str, ...]
    value: str
    """64 hexadecimal digits."""
    time: datetime
    expires_s: int | None
    """Of a presigned URL; None for one in a header."""
    session_token: str
    stamp: str = ""
    """`time` as the request had it, where that is the form that is signed."""

    @property
    def amz_date(self) -> str:
        return self.stamp or f"{self.time:%Y%m%dT%H%M%SZ}"


def parse(request: HttpRequest) -> Signature:
    """Takes the signature of a request apart. Raises AuthError: MISSING, INCOMPLETE, UNSUPPORTED."""
    authorization = request.named.get("authorization")
    # Most queries have nothing to do with signing: they are taken apart only where they may.
    query = dict(query_pairs(request.query)) if _QUERY_SIGNS.search(request.query) else {}
    if authorization is not None and "X-Amz-Algorithm" in query:
        raise AuthError(AuthKind.INCOMPLETE, "Sign either in the Authorization header or in the query, not in both.")
    if authorization is not None:
        return _from_header(request.named, authorization)
    if "X-Amz-Algorithm" in query:
        return _from_query(request, query)
    if "AWSAccessKeyId" in query and "Signature" in query:
        raise AuthError(
            AuthKind.UNSUPPORTED,
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
        )
    raise AuthError(AuthKind.MISSING, "Missing Authentication Token")


class Signer:
    """Signs with one key, which it does not give out. What HMAC does with the key alone is done once."""

    __slots__ = ("_begun",)

    def __init__(self, key: bytes) -> None:
        self._begun = hmac.new(key, digestmod="sha256")

    def sign(self, text: str) -> str:
        """The signature of `text`: 64 hexadecimal digits."""
        made = self._begun.copy()
        made.update(text.encode("utf-8", "surrogateescape"))
        return made.hexdigest()


def verify(request: HttpRequest, signature: Signature, signer: Signer, payload_hash: str) -> None:
    """Raises AuthError(MISMATCH) unless the key of `signer` signed exactly this request. Takes constant time over the digits.

    `payload_hash` is what the client signed for the body: hexadecimal SHA-256 or one of S3's words.
    """
    _check_signed_headers(request, signature)
    for path in canonical_paths(request.path, signature.scope.service):
        expected = signer.sign(string_to_sign(request, signature, path, payload_hash))
        if hmac.compare_digest(expected, signature.value):
            return
    raise AuthError(AuthKind.MISMATCH, MISMATCH_TEXT)


def verify_time(signature: Signature, now: datetime, skew_s: int) -> None:
    """Raises AuthError: SKEWED for a request signed more than `skew_s` seconds away from `now`, EXPIRED_URL."""
    age_s = (now - signature.time).total_seconds()
    if age_s < -skew_s:
        limit = f"{now + timedelta(seconds=skew_s):%Y%m%dT%H%M%SZ}"
        text = f"Signature not yet current: {signature.amz_date} is still later than {limit}."
        raise AuthError(AuthKind.SKEWED, text, _skewed(signature, now, skew_s))
    if signature.expires_s is not None:
        if age_s > signature.expires_s:
            end = signature.time + timedelta(seconds=signature.expires_s)
            times = {"X-Amz-Expires": str(signature.expires_s), "Expires": iso(end), "ServerTime": iso(now)}
            raise AuthError(AuthKind.EXPIRED_URL, "Request has expired", times)
    elif age_s > skew_s:
        limit = f"{now - timedelta(seconds=skew_s):%Y%m%dT%H%M%SZ}"
        text = f"Signature expired: {signature.amz_date} is now earlier than {limit}."
        raise AuthError(AuthKind.SKEWED, text, _skewed(signature, now, skew_s))


def _skewed(signature: Signature, now: datetime, skew_s: int) -> dict[str, str]:
    most = str(skew_s * 1000)
    return {"RequestTime": signature.amz_date, "ServerTime": iso(now), "MaxAllowedSkewMilliseconds": most}


def iso(moment: datetime) -> str:
    """2026-11-22T04:00:00Z"""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def string_to_sign(request: HttpRequest, signature: Signature, canonical_path: str, payload_hash: str) -> str:
    """What the client put its key to."""
    canonical = canonical_request(request, signature, canonical_path, payload_hash)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{signature.amz_date}\n{signature.scope}\n{digest}"


def canonical_request(request: HttpRequest, signature: Signature, canonical_path: str, payload_hash: str) -> str:
    """The request as its digest is signed."""
    named = request.named
    headers = "".join([f"{name}:{' '.join(named[name].split())}\n" for name in signature.signed_headers])
    return "\n".join(
        (
            request.method,
            canonical_path,
            _query(request.query, presigned=signature.expires_s is not None),
            headers,
            ";".join(signature.signed_headers),
            payload_hash,
        )
    )


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Decoded names and values in order. `+` stays a plus, as SigV4 has it; bytes that are no UTF-8 are kept apart."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(_decode(name), _decode(value)) for name, _, value in pairs]


def _decode(text: str) -> str:
    if "%" not in text:
        return text
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _from_header(named: Mapping[str, str], authorization: str) -> Signature:
    if not authorization.startswith("AWS4-"):
        raise AuthError(
            AuthKind.UNSUPPORTED,
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
        )
    end = authorization.rfind("Signature=") + len("Signature=")
    value = _VALUE.fullmatch(authorization, end)
    if value is None:
        raise _malformed()
    scope, headers = _front(authorization[:end])
    stamp = named.get("x-amz-date")
    time = _amz_time(stamp, scope) if stamp is not None else _date_time(named.get("date"), scope)
    token = named.get("x-amz-security-token")
    return Signature(scope, headers, value[1], time, None, _token(token) if token else "", stamp or "")


def _malformed() -> AuthError:
    text = f"Authorization header requires '{ALGORITHM}' with Credential, SignedHeaders and Signature."
    return AuthError(AuthKind.INCOMPLETE, text)


@lru_cache(KEPT)
def _front(text: str) -> tuple[Scope, tuple[str, ...]]:
    """The Authorization header up to the signature itself."""
    match = _FRONT.fullmatch(text)
    if match is None:
        raise _malformed()
    return _scope(match["credential"]), _header_names(match["headers"])


def _from_query(request: HttpRequest, query: dict[str, str]) -> Signature:
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise AuthError(AuthKind.UNSUPPORTED, f"X-Amz-Algorithm only supports {ALGORITHM}.")
    needed = ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature")
    if missing := [name for name in needed if not query.get(name)]:
        raise AuthError(AuthKind.INCOMPLETE, f"Query-string authentication requires {', '.join(missing)}.")
    if not re.fullmatch(r"[0-9a-f]{64}", query["X-Amz-Signature"]):
        raise AuthError(AuthKind.INCOMPLETE, "X-Amz-Signature must be 64 hexadecimal digits.")
    expires = query["X-Amz-Expires"]
    if not re.fullmatch(r"\d{1,6}", expires) or int(expires) > EXPIRES_MAX_S:
        raise AuthError(AuthKind.INCOMPLETE, f"X-Amz-Expires must be a number of at most {EXPIRES_MAX_S} seconds.")
    scope = _scope(query["X-Amz-Credential"])
    return Signature(
        scope=scope,
        signed_headers=_header_names(query["X-Amz-SignedHeaders"]),
        value=query["X-Amz-Signature"],
        time=_amz_time(query["X-Amz-Date"], scope),
        expires_s=int(expires),
        session_token=_token(query.get("X-Amz-Security-Token", "")),
        stamp=query["X-Amz-Date"],
    )


def of_form(credential: str, stamp: str, value: str, token: str) -> Signature:
    """A signature in the fields of a form. Raises AuthError: INCOMPLETE, UNKNOWN_KEY."""
    scope = _scope(credential)
    return Signature(scope, (), value, _amz_time(stamp, scope), None, _token(token), stamp)


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise AuthError(AuthKind.UNKNOWN_KEY, "The security token included in the request is invalid.")
    return text


@lru_cache(KEPT)
def _scope(credential: str) -> Scope:
    match = _CREDENTIAL.fullmatch(credential)
    if match is None:
        raise AuthError(
            AuthKind.INCOMPLETE,
            "Credential must have the form <access key>/<YYYYMMDD>/<region>/<service>/aws4_request.",
        )
    return Scope(match["key"], match["date"], match["region"], match["service"])


@lru_cache(KEPT)
def _header_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(";"))
    if list(names) != sorted({name.lower() for name in names}) or "" in names:
        raise AuthError(AuthKind.INCOMPLETE, "SignedHeaders must be header names in lower case, sorted, each once.")
    if "host" not in names:
        raise AuthError(AuthKind.INCOMPLETE, "'Host' must be a signed header.")
    return names


def _date_time(date: str | None, scope: Scope) -> datetime:
    if date is None:
        raise AuthError(AuthKind.INCOMPLETE, NO_DATE_TEXT)
    try:
        time = parsedate_to_datetime(date)
    except (ValueError, TypeError) as error:
        raise AuthError(AuthKind.INCOMPLETE, "The 'Date' header is no HTTP date.") from error
    time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    _same_day(f"{time.year:04}{time.month:02}{time.day:02}", scope)
    return time


def _amz_time(stamp: str, scope: Scope) -> datetime:
    time = _stamped(stamp)
    _same_day(stamp[:8], scope)
    return time


@lru_cache(KEPT)
def _stamped(stamp: str) -> datetime:
    try:
        if not _STAMP.fullmatch(stamp):
            raise ValueError(stamp)
        return datetime.fromisoformat(stamp)
    except ValueError as error:
        raise AuthError(AuthKind.INCOMPLETE, "X-Amz-Date must have the form YYYYMMDDTHHMMSSZ.") from error


def _same_day(day: str, scope: Scope) -> None:
    if scope.date != day:
        raise AuthError(AuthKind.INCOMPLETE, "The date in Credential must be the day of X-Amz-Date.")


def _check_signed_headers(request: HttpRequest, signature: Signature) -> None:
    present, signed = request.named.keys(), signature.signed_headers
    if unsigned := [n for n in present - signed if n.startswith("x-amz-") and n not in UNSIGNED_HEADERS_ALLOWED]:
        names = ", ".join(sorted(unsigned))
        text = f"There were headers present in the request which were not signed: {names}"
        raise AuthError(AuthKind.MISMATCH, text, {"HeadersNotSigned": names})
    if not present >= set(signed):
        names = ", ".join(sorted(set(signed) - present))
        raise AuthError(AuthKind.MISMATCH, f"Signed headers are absent from the request: {names}")


def canonical_paths(path: str, service: str) -> Sequence[str]:
    """The forms in which clients sign a path; all of them mean the same path."""
    if service == "s3":
        decoded = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
        return tuple(dict.fromkeys((path, quote(decoded, safe="/-_.~"))))
    return (path if _PLAIN_PATH.fullmatch(path) else quote(_normalised(path), safe="/~"),)


def _normalised(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    tail = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + tail


def _query(query: str, *, presigned: bool) -> str:
    if not query:
        return ""
    if presigned or len(query) > QUERY_KEPT_MAX:
        return _canonical_query(query, presigned=presigned)
    return _kept_query(query)


@lru_cache(KEPT)
def _kept_query(query: str) -> str:
    return _canonical_query(query, presigned=False)


def _canonical_query(query: str, *, presigned: bool) -> str:
    pairs = (part.partition("=") for part in query.split("&") if part)
    encoded = sorted((_recode(name), _recode(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded if not (presigned and name == "X-Amz-Signature"))


def _recode(text: str) -> str:
    if _UNRESERVED.fullmatch(text):
        return text
    return quote(unquote_to_bytes(text.encode("utf-8", "surrogateescape")), safe="-_.~")
