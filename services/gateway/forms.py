"""Uploads by an HTML form (multipart/form-data): the fields in front of the file, and the file as it flows by.

The fields are bounded and held, the file is not. Knows the form's encoding (RFC 7578) and who signed it: the fields hold a text and
its signature, of Version 4 or 2. What the text means is the service's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message

from belvedere.chassis.context import Caller
from services.gateway import sigv4
from services.gateway.access import Access
from services.gateway.errors import AuthError, AuthKind, AwsError
from services.gateway.message import Call, Proof
from services.gateway.sigv2 import SignatureV2
from services.gateway.sigv4 import HttpRequest, Signature

FIELDS_MAX_BYTES = 20 << 10
"""Of everything in front of the file, as with S3."""
AFTER_MAX_BYTES = 20 << 10
"""Behind the file, where nothing is read."""
TYPE = "multipart/form-data"

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}")


@dataclass
class Form:
    """The fields of a form, and its file."""

    fields: Mapping[str, str]
    """By their names in lower case; the file's is not among them."""
    file_name: str
    file: AsyncIterator[bytes]
    """To be read once. Raises AwsError where the form breaks off."""
    about_bytes: int
    """How large the file is if nothing follows it, from the length of the whole."""

    def need(self, name: str) -> str:
        """A field that has to be there. Raises AwsError(InvalidArgument)."""
        value = self.fields.get(name.lower(), "")
        if not value:
            message = f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields."
            raise AwsError("InvalidArgument", message, 400, {"ArgumentName": name, "ArgumentValue": ""})
        return value


def is_form(call: Call) -> bool:
    """Whether a request is an upload by a form that has its signature in its fields."""
    content_type = call.header("content-type").lower()
    signed = "authorization" in call.http.named or call.parameter("X-Amz-Algorithm") is not None
    return call.method == "POST" and content_type.startswith(TYPE) and not signed


async def read(call: Call) -> Form:
    """The form up to where its file begins. Raises AwsError."""
    boundary = _parameter(call.header("content-type"), "boundary")
    if not _BOUNDARY.fullmatch(boundary):
        raise _malformed()
    if call.content_length is None:
        raise AwsError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
    end = f"\r\n--{boundary}".encode()
    stream = _Stream(call.chunks())
    # What stands in front of the first part belongs to nobody (RFC 2046).
    await stream.until(end, FIELDS_MAX_BYTES)
    fields: dict[str, str] = {}
    while await stream.another():
        head = (await stream.until(b"\r\n\r\n", FIELDS_MAX_BYTES - stream.taken)).decode("utf-8", "replace")
        disposition, of_file = _disposition(head)
        name = disposition.lower()
        if name == "file":
            left = call.content_length - stream.taken - len(end) - len(b"--\r\n")
            return Form(fields, of_file, _file(stream, end), max(left, 0))
        value = await stream.until(end, FIELDS_MAX_BYTES - stream.taken)
        if not name or name in fields:
            raise _malformed()
        try:
            fields[name] = value.decode()
        except UnicodeDecodeError as error:
            raise _malformed() from error
    message = "POST requires exactly one file upload per request."
    raise AwsError("InvalidArgument", message, 400, {"ArgumentName": "file", "ArgumentValue": "0"})


async def _file(stream: _Stream, end: bytes) -> AsyncIterator[bytes]:
    async for piece in stream.pieces(end):
        yield piece
    await stream.drain(AFTER_MAX_BYTES)


async def prove(form: Form, call: Call, access: Access, region: str, now: datetime) -> tuple[Proof, Caller]:
    """Who signed the field `policy`. Raises AuthError, AwsError. `region`: of a signature that names none."""
    text = form.fields.get("policy", "")
    if not text:
        raise AuthError(AuthKind.MISSING, "Missing Authentication Token")
    token = form.fields.get("x-amz-security-token", "")
    if "awsaccesskeyid" in form.fields:
        old = _signed_v2(form, token, call.http)
        key = await access.verify_v2(old, text, region, call.request_id)
        scope = sigv4.Scope(old.access_key_id, f"{now:%Y%m%d}", region, "s3")
        signature = Signature(scope, (), "", now, None, token)
    else:
        signature = _signed(form, token)
        key = await access.key(signature, call.request_id)
        if not hmac.compare_digest(key.signer.sign(text), signature.value):
            raise AuthError(AuthKind.MISMATCH, sigv4.MISMATCH_TEXT)
        region = signature.scope.region
    proof = Proof(signature, key.signer, key.principal)
    return proof, Caller(key.account, region, key.arn, call.request_id, call.source_address)


def _signed(form: Form, token: str) -> Signature:
    if form.need("x-amz-algorithm") != sigv4.ALGORITHM:
        raise AuthError(AuthKind.UNSUPPORTED, f"x-amz-algorithm only supports {sigv4.ALGORITHM}.")
    value = form.need("x-amz-signature")
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise AuthError(AuthKind.MISMATCH, sigv4.MISMATCH_TEXT)
    return sigv4.of_form(form.need("x-amz-credential"), form.need("x-amz-date"), value, token)


def _signed_v2(form: Form, token: str, request: HttpRequest) -> SignatureV2:
    try:
        value = base64.b64decode(form.need("signature"), validate=True)
    except (binascii.Error, ValueError):
        value = b""
    # When it ends is said in what it signs.
    ends = datetime.max.replace(tzinfo=UTC)
    return SignatureV2(form.need("awsaccesskeyid")[:128], value, ends, token, request)


def _disposition(head: str) -> tuple[str, str]:
    """(name, file name) of a part. Raises AwsError."""
    lines = (line.partition(":") for line in head.split("\r\n"))
    found = next((value for name, _, value in lines if name.strip().lower() == "content-disposition"), None)
    if found is None:
        raise _malformed()
    return _parameter(found, "name"), _parameter(found, "filename")


def _parameter(header: str, name: str) -> str:
    message = Message()
    message["content-disposition"] = header
    value = message.get_param(name, "", "content-disposition")
    if isinstance(value, tuple):
        try:
            return value[2].encode("latin-1").decode(value[0] or "utf-8")
        except (LookupError, UnicodeError) as error:
            raise _malformed() from error
    return str(value)


def _malformed() -> AwsError:
    message = "The body of your POST request is not well-formed multipart/form-data."
    return AwsError("MalformedPOSTRequest", message)


class _Stream:
    """Reads up to a mark, holding no more than it must."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        # A boundary begins with the end of the line before it, which the first one does not have.
        self._source, self._buffer = source, bytearray(b"\r\n")
        self.taken = -2
        """Bytes of the body that have been taken."""

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._source)
        except StopAsyncIteration:
            raise _malformed() from None

    def _take(self, size: int) -> bytes:
        part = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.taken += size
        return part

    async def another(self) -> bool:
        """Behind a boundary: whether a part follows. Raises AwsError."""
        while len(self._buffer) < 2:
            await self._more()
        found = self._take(2)
        if found not in (b"\r\n", b"--"):
            raise _malformed()
        return found == b"\r\n"

    async def until(self, mark: bytes, most: int) -> bytes:
        """What stands in front of `mark`, which is passed over. Raises AwsError above `most` bytes."""
        while (at := self._buffer.find(mark)) < 0 and len(self._buffer) <= most + len(mark):
            await self._more()
        if not 0 <= at <= max(most, 0):
            text = "Your POST request fields preceding the upload file were too large."
            most_told = {"MaxPostPreDataLengthBytes": FIELDS_MAX_BYTES}
            raise AwsError("MaxPostPreDataLengthExceeded", text, 400, most_told)
        part = self._take(at)
        self._take(len(mark))
        return part

    async def pieces(self, mark: bytes) -> AsyncIterator[bytes]:
        """The same, however much it is."""
        while (at := self._buffer.find(mark)) < 0:
            if (sure := len(self._buffer) - len(mark) + 1) > 0:
                yield self._take(sure)
            await self._more()
        if at:
            yield self._take(at)
        self._take(len(mark))

    async def drain(self, most: int) -> None:
        """What is left, unread. Raises AwsError above `most` bytes."""
        left = len(self._buffer)
        async for chunk in self._source:
            left += len(chunk)
            if left > most:
                raise _malformed()
