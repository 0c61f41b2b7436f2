"""What S3 says to a caller whom it does not believe: codes, texts and members of AWS's, from what the signature's check found.

Pure. The members of a wrong signature are what the caller signed or should have signed, never anything that a key was put to
elsewhere: the string to sign and the canonical request are made of its own request.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway import sigv2, sigv4
from services.gateway.access import claimed_key
from services.gateway.errors import AuthError, AuthKind, AwsError
from services.gateway.message import Call
from services.gateway.payload import declared_hash
from services.gateway.s3 import failures

ACCESS_DENIED = "Access Denied"
BYTES_TOLD = 8 << 10
"""A canonical request up to this size is told byte by byte too, as AWS does."""
_CODES: Mapping[AuthKind, tuple[str, int, str]] = {
    AuthKind.MISSING: ("AccessDenied", 403, ACCESS_DENIED),
    AuthKind.INCOMPLETE: ("AuthorizationHeaderMalformed", 400, ""),
    AuthKind.UNSUPPORTED: ("InvalidRequest", 400, ""),
    AuthKind.UNKNOWN_KEY: (
        "InvalidAccessKeyId",
        403,
        "The AWS Access Key Id you provided does not exist in our records.",
    ),
    AuthKind.EXPIRED_TOKEN: ("ExpiredToken", 400, "The provided token has expired."),
    AuthKind.MISMATCH: (
        "SignatureDoesNotMatch",
        403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    ),
    AuthKind.SKEWED: (
        "RequestTimeTooSkewed",
        403,
        "The difference between the request time and the current time is too large.",
    ),
    AuthKind.EXPIRED_URL: ("AccessDenied", 403, "Request has expired"),
    AuthKind.DENIED: ("AccessDenied", 403, ""),
}
"""(code, status, S3's own text; empty: the error's)."""


def told(call: Call, error: AuthError, signed_path: str) -> AwsError:
    """The same in S3's words. `signed_path`: what Signature Version 2 means by the resource."""
    code, status, text = _CODES[error.kind]
    members: dict[str, str] = dict(error.members)
    in_header = "authorization" in call.http.named
    match error.kind:
        case AuthKind.INCOMPLETE if call.form is not None:
            code = "InvalidArgument"
        case AuthKind.INCOMPLETE if error.message == sigv4.NO_DATE_TEXT:
            code, status, text = "AccessDenied", 403, "AWS authentication requires a valid Date or x-amz-date header"
        case AuthKind.INCOMPLETE if in_header:
            text = f"The authorization header is malformed; {error.message}"
        case AuthKind.INCOMPLETE if sigv2.is_signed(call.http):
            code, status = "AccessDenied", 403
        case AuthKind.INCOMPLETE:
            code = "AuthorizationQueryParametersError"
        case AuthKind.UNKNOWN_KEY if _has_token(call):
            code, status, text = "InvalidToken", 400, "The provided token is malformed or otherwise invalid."
        case AuthKind.UNKNOWN_KEY:
            members["AWSAccessKeyId"] = claimed_key(call.http) or _key_in_form(call)
        case AuthKind.MISMATCH if "HeadersNotSigned" in members:
            text = "There were headers present in the request which were not signed"
            code = "AccessDenied"
        case AuthKind.MISMATCH:
            members |= _signed(call, signed_path)
    return AwsError(code, text or error.message, status, members)


def broken(*, too_large: bool) -> AwsError:
    """To what is no valid HTTP."""
    if too_large:
        return failures.headers_too_large()
    return AwsError("BadRequest", "An error occurred when parsing the HTTP request.")


def _has_token(call: Call) -> bool:
    names = {name.lower() for name, _ in call.query}
    return "x-amz-security-token" in names or "x-amz-security-token" in call.http.named


def _key_in_form(call: Call) -> str:
    fields = call.form.fields if call.form is not None else {}
    return fields.get("awsaccesskeyid") or fields.get("x-amz-credential", "").partition("/")[0]


def _signed(call: Call, signed_path: str) -> dict[str, str]:
    """What should have been signed."""
    if call.form is not None:
        fields = call.form.fields
        key = _key_in_form(call)
        given = fields.get("signature") or fields.get("x-amz-signature", "")
        text = fields.get("policy", "")
        return {
            "AWSAccessKeyId": key,
            "StringToSign": text,
            "SignatureProvided": given,
            **_bytes("StringToSignBytes", text),
        }
    if sigv2.is_signed(call.http):
        old = sigv2.parse(call.http)
        text = sigv2.string_to_sign(old, signed_path)
        given = call.parameter("Signature") or ""
        return {
            "AWSAccessKeyId": old.access_key_id,
            "StringToSign": text,
            "SignatureProvided": given,
            **_bytes("StringToSignBytes", text),
        }
    signature = sigv4.parse(call.http)
    path = sigv4.canonical_paths(call.path, "s3")[0]
    payload_hash = declared_hash(call)
    if not set(signature.signed_headers) <= call.http.named.keys():
        return {"AWSAccessKeyId": signature.scope.access_key_id, "SignatureProvided": signature.value}
    text = sigv4.string_to_sign(call.http, signature, path, payload_hash)
    canonical = sigv4.canonical_request(call.http, signature, path, payload_hash)
    return {
        "AWSAccessKeyId": signature.scope.access_key_id,
        "StringToSign": text,
        "SignatureProvided": signature.value,
        **_bytes("StringToSignBytes", text),
        "CanonicalRequest": _sayable(canonical),
        **_bytes("CanonicalRequestBytes", canonical),
    }


def _bytes(name: str, text: str) -> dict[str, str]:
    data = text.encode("utf-8", "surrogateescape")
    return {name: data.hex(" ")} if len(data) <= BYTES_TOLD else {}


def _sayable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
