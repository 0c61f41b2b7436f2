"""Keys, JWTs, subjects, events: no server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.bus import jwt, subjects
from belvedere.bus.errors import InvalidDocument
from belvedere.bus.event import Event
from belvedere.bus.jetstream import parse_headers
from belvedere.bus.jwt import Kind

EVENT = Event("registry.device.online", "/belvedere/registry", "device-a", "123456789012", "us-east-1", {"a": 1})


def test_a_key_is_of_one_kind() -> None:
    for kind, letter in ((Kind.OPERATOR, "O"), (Kind.ACCOUNT, "A"), (Kind.USER, "U")):
        key = jwt.new_key(kind)
        assert key.public.startswith(letter) and jwt.key_from_seed(key.seed.reveal()).public == key.public
        assert [jwt.is_public_key(key.public, other) for other in Kind].count(True) == 1
    broken = key.public[:-1] + ("A" if key.public[-1] != "A" else "B")
    assert not jwt.is_public_key(broken, Kind.USER)
    for text in ("", "S", "SUAAAA", "x" * 58):
        with pytest.raises(ValueError, match="no nkey seed"):
            jwt.key_from_seed(text)


def test_a_jwt_is_read_only_as_it_was_signed() -> None:
    key = jwt.new_key(Kind.ACCOUNT)
    token = jwt.encode("Uxyz", "name", {"type": "user"}, key, issued_at=1, expires_at=2)
    claims = jwt.decode(token)
    assert (claims["sub"], claims["iss"], claims["iat"], claims["exp"]) == ("Uxyz", key.public, 1, 2)
    assert claims["nats"] == {"type": "user", "version": 2}
    front, body, signature = token.split(".")
    other = jwt.encode("Uabc", "name", {"type": "user"}, key, issued_at=1).split(".")
    for forged in (f"{front}.{other[1]}.{signature}", f"{front}.{body}.{other[2]}", f"{front}.{body}", "", token + "x"):
        with pytest.raises(InvalidDocument):
            jwt.decode(forged)


@given(st.text(max_size=100))
def test_no_text_crashes_the_readers_of_keys_and_jwts(text: str) -> None:
    assert not jwt.is_public_key(text, Kind.USER)
    assert not jwt.verify(text, b"data", b"signature")
    for candidate in (text, f"{text}.{text}.{text}", "e30.e30.e30"):
        with pytest.raises(InvalidDocument):
            jwt.decode(candidate)


@given(st.text(max_size=20))
def test_no_id_widens_a_subject(text: str) -> None:
    try:
        subject = subjects.up_logs(text)
    except ValueError:
        return
    assert subject.count(".") == 2 and not set("*> \t\r\n") & set(subject)
    assert subjects.device_of(subject) == text


def test_a_reply_subject_is_never_the_same_twice() -> None:
    assert len({subjects.rsp("device-a") for _ in range(100)}) == 100


def test_an_event_is_a_cloudevent_and_reads_back() -> None:
    import json

    envelope = json.loads(EVENT.to_json())
    assert envelope["specversion"] == "1.0" and envelope["type"] == "registry.device.online"
    assert {"id", "source", "subject", "time", "account", "region", "data"} <= set(envelope)
    assert EVENT.nats_subject == "belvedere.events.registry.device.online"
    assert Event.from_json(EVENT.to_json()) == EVENT
    assert EVENT.time.tzinfo is UTC and EVENT.time <= datetime.now(UTC)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"{}", b'{"specversion": "0.3"}', b"\xff", b'{"specversion": "1.0"}']
)
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidDocument):
        Event.from_json(raw)


def test_headers_of_stored_messages_are_read() -> None:
    raw = b"NATS/1.0\r\nNats-Msg-Id: a:b\r\nKV-Operation:DEL\r\n\r\n"
    assert parse_headers(raw) == {"Nats-Msg-Id": "a:b", "KV-Operation": "DEL"}
