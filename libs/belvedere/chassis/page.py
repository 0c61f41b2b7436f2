"""Paging as the AWS API does it: MaxResults up to 25, opaque NextToken.

    size = page_size(request.max_results if request.HasField("max_results") else None)
    after = decode_token(request.next_token, "ListDevices", filters)      # None on the first page, else what was
    encoded rows = select(...).where(Device.key > after["key"]).limit(size + 1)
    rows, more = cut(rows, size)
    next_token = encode_token({"key": rows[-1].key}, "ListDevices", filters) if more else None

Must not know tables. A token holds the last row's sort key, so that rows added or removed between two pages neither
double nor hide others, and a fingerprint of the query, so that a token of one list is refused by another.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from belvedere.chassis.errors import Invalid

MAX_RESULTS = 25
"""Most items on a page, and the number where the caller names none (shape MaxSize25)."""

T = TypeVar("T")


def page_size(max_results: int | None, limit: int = MAX_RESULTS) -> int:
    """How many items a page takes: `limit` for None and 0. Raises Invalid below 0 and above `limit`."""
    if max_results is None or max_results == 0:
        return limit
    if not 0 < max_results <= limit:
        raise Invalid(
            f"MaxResults is {max_results}: it must lie between 0 and {limit}.", fields=[("MaxResults", f"0 to {limit}")]
        )
    return max_results


def _fingerprint(query: str, filters: Any) -> str:
    text = json.dumps([query, filters], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def encode_token(cursor: dict[str, Any], query: str, filters: Any = None) -> str:
    """An opaque token for the page after `cursor` (JSON values) of `query` with `filters`."""
    text = json.dumps({"c": cursor, "q": _fingerprint(query, filters)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str | None, query: str, filters: Any = None) -> dict[str, Any] | None:
    """The cursor in `token`; None for no token. Raises Invalid for a token that this query did not give."""
    if not token:
        return None
    wrong = Invalid(
        "NextToken is not valid: use the one of the previous page of the same request.",
        fields=[("NextToken", "not valid")],
    )
    try:
        document = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError) as error:
        raise wrong from error
    if not isinstance(document, dict) or document.get("q") != _fingerprint(query, filters):
        raise wrong
    cursor = document.get("c")
    if not isinstance(cursor, dict):
        raise wrong
    return cursor


def cut(rows: Sequence[T], size: int) -> tuple[list[T], bool]:
    """Of `size + 1` rows asked for: the page, and whether there is another after it."""
    return list(rows[:size]), len(rows) > size
