"""What calls are named after that end before policies are asked: for their lines in the audit trail.

Reads the beginning of a body that nobody has read, and what the protocols say of themselves. Knows no model and no service.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qsl

from services.gateway.errors import ClientGone, GatewayError
from services.gateway.message import BODY_NAMED_MAX, Call

BEGINNING_TIMEOUT_S = 2.0
"""For the beginning of a refused call's body. Without it the line names method and path."""
FORM = "application/x-www-form-urlencoded"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_CBOR_PATH = re.compile(r"/service/[^/]+/operation/([^/]+)")


async def beginning(call: Call) -> bytes:
    """The first BODY_NAMED_MAX bytes of the body, as far as they come in time."""
    expected = "expect" in call.http.named  # nobody is asked for what nobody wants
    if call.body or call.opened or not call.has_body or expected:
        return call.body[:BODY_NAMED_MAX]
    call.opened = True
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BEGINNING_TIMEOUT_S):
            async for chunk in call.chunks():
                parts.append(chunk)
                size += len(chunk)
                if size >= BODY_NAMED_MAX:
                    break
    except (TimeoutError, GatewayError, ClientGone):
        pass  # what came is what there is
    return b"".join(parts)[:BODY_NAMED_MAX]


def spoken(call: Call) -> str:
    """The operation that a request names in its protocol, served or not; empty where it names none."""
    if target := call.header("x-amz-target"):
        found = target.rpartition(".")[2]
    elif match := _CBOR_PATH.fullmatch(call.path):
        found = match[1]
    else:
        found = action_of(call.body, call.http.query) if is_form(call) else ""
    return found if _NAME.fullmatch(found) else ""


def action_of(body: bytes, query: str) -> str:
    """`Action` of the query protocol; empty where there is none. The form may be cut off."""
    text = body[:BODY_NAMED_MAX].decode("utf-8", "replace") or query
    try:
        return dict(parse_qsl(text, max_num_fields=BODY_NAMED_MAX)).get("Action", "")
    except ValueError:
        return ""


def is_form(call: Call) -> bool:
    """Whether it is in the query protocol."""
    return call.header("content-type").lower().startswith(FORM) or call.parameter("Action") is not None
