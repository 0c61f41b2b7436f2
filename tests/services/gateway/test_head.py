"""Requests read from their bytes: the plain ones, as aiohttp reads them; all others are left to aiohttp."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.gateway import head

PLAIN = b"GET /devices?MaxResults=25 HTTP/1.1\r\nHost: a:1\r\nX-Amz-Date: 1\r\n\r\n"
BODY = b"PUT /a%2Fb HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def test_a_plain_request_is_read_as_it_came() -> None:
    found = head.read(PLAIN)
    assert found is not None
    request, body, end = found
    assert (request.method, request.path, request.query) == ("GET", "/devices", "MaxResults=25")
    assert request.headers == [("host", "a:1"), ("x-amz-date", "1")] and (body, end) == (b"", len(PLAIN))


def test_requests_in_a_row_are_read_one_after_the_other() -> None:
    first = head.read(BODY + PLAIN)
    assert first is not None and first[1] == b"abc" and first[0].path == "/a%2Fb"
    second = head.read((BODY + PLAIN)[first[2] :])
    assert second is not None and second[0].path == "/devices"


def test_values_of_one_name_are_joined_and_spaces_around_them_are_not_theirs() -> None:
    found = head.read(b"GET / HTTP/1.1\r\nHost:a\r\nx-amz-meta-a:  1 2 \r\nX-Amz-Meta-A: 3\r\nEmpty:\r\n\r\n")
    assert found is not None and found[0].named == {"host": "a", "x-amz-meta-a": "1 2,3", "empty": ""}


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        BODY[:-1],
        b"\r\n" + PLAIN,
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"GET", b"HEAD"),
        PLAIN.replace(b"GET", b"get"),
        PLAIN.replace(b"GET /", b"GET  /"),
        PLAIN.replace(b"/devices", b"http://a/devices"),
        PLAIN.replace(b"/devices", b"/dev ices"),
        PLAIN.replace(b"25", b"25#x"),
        PLAIN.replace(b"/devices", "/gerät".encode()),
        PLAIN.replace(b"Host: a:1\r\n", b""),
        PLAIN.replace(b"\r\nX-", b"\nX-"),
        PLAIN.replace(b"\r\nX-", b"\r\n X-"),
        PLAIN.replace(b"Date: 1", b"Date : 1"),
        PLAIN.replace(b"Date: 1", b"Date"),
        PLAIN.replace(b"Date: 1", b"Date: 1\r2"),
        PLAIN.replace(b"Date: 1", b"Date: 1\x002"),
        PLAIN.replace(b"Date: 1", b"Date: \t1"),
        *[
            PLAIN.replace(b"X-Amz-Date: 1", line)
            for line in (
                b"Host: b",
                b"Transfer-Encoding: chunked",
                b"Expect: 100-continue",
                b"Connection: close",
                b"Connection: keep-alive, upgrade",
                b"Upgrade: websocket",
                b"Content-Length: -1",
                b"Content-Length: +1",
                b"Content-Length: 1, 1",
                b"Content-Length: ",
                b"Content-Length: 99999999999",
            )
        ],
        BODY.replace(b"Content", b"content-length: 3\r\nContent"),
        PLAIN.replace(b"X-Amz-Date: 1", b"\r\n".join(b"A: 1" for _ in range(head.HEADERS_MAX))),
        PLAIN.replace(b"Date: 1", b"Date: " + b"1" * head.HEAD_MAX_BYTES),
    ],
)
def test_what_is_not_plain_is_left_to_a_whole_parser(data: bytes) -> None:
    assert head.read(data) is None


@given(st.binary(max_size=200).map(lambda tail: b"GET / HTTP/1.1\r\nHost: a\r\n" + tail) | st.binary(max_size=100))
@example(PLAIN * 3)
def test_whatever_comes_is_read_or_left_and_nothing_is_taken_twice(data: bytes) -> None:
    found = head.read(data)
    if found is not None:
        assert 0 < found[2] <= len(data) and found[0].path.startswith("/")
        assert all(name == name.lower() and value.isprintable() for name, value in found[0].headers)
