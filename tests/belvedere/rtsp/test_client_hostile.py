"""The client against servers that misbehave, each failure with its own error and within its time."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from belvedere.rtsp import (
    ClientClosed,
    ClientError,
    ClientSettings,
    ProtocolError,
    RtspClient,
    ServerFailed,
    ServerUnreachable,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamStalled,
    StreamUnsupported,
)
from belvedere.secret import Secret
from tests.support.scripted_rtsp import SDP, Answer, Asked, ScriptedServer
from tests.support.whole import kept_port

PATIENT = ClientSettings(open_timeout_s=30.0, stall_timeout_s=30.0)
STALL_S = 0.5
SOON_S = 20.0
"""Long before a patient client gives up."""
KEY = b"\x65\x80picture"


def rtp(sequence: int, stamp: int, payload: bytes = KEY, marker: bool = True) -> bytes:
    return struct.pack("!BBHII", 0x80, 96 | marker << 7, sequence & 0xFFFF, stamp & 0xFFFFFFFF, 7) + payload


def framed(packet: bytes, channel: int = 0) -> bytes:
    return b"$" + bytes([channel]) + len(packet).to_bytes(2, "big") + packet


def opened(server: ScriptedServer, settings: ClientSettings = PATIENT) -> RtspClient:
    client = RtspClient(server.url, "user", Secret("p4ssw0rd"), settings)
    client.open()
    return client


def failure(answers: dict[str, Answer], url: str = "") -> ClientError:
    """What `open` raises."""
    with ScriptedServer(answers) as server, pytest.raises(ClientError) as failed:
        opened(server)
    assert "p4ssw0rd" not in str(failed.value)
    return failed.value


def always(raw: bytes) -> Answer:
    return lambda asked: raw


def with_headers(*more: str) -> Answer:
    return lambda asked: asked.answer(200, "", *more)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\x16\x03\x01\x02\x00", "no RTSP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no RTSP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no RTSP"),
        (b"RTSP/1.0 OK\r\n\r\n", "no RTSP"),
        (b"RTSP/1.0 200 OK\r\nno colon here\r\n\r\n", "headers cannot be read"),
        (b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 100 + b"\r\n", "headers cannot be read"),
        (b"RTSP/1.0 200 OK\r\n" + b"X: " + b"y" * 40_000, "headers are too long"),
        (b"RTSP/1.0 200 " + b"y" * 40_000, "headers are too long"),
        (b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 999999999999999\r\n\r\n", "longer than"),
        (b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 100000\r\n\r\n", "longer than"),
        (b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n", "not a number"),
        (b"RTSP/1.0 200 OK\r\nCSeq: 99\r\n\r\n", "CSeq"),
        (b"RTSP/1.0 200 OK\r\nCSeq: one\r\n\r\n", "CSeq"),
        (b"RTSP/1.0 200 OK\r\nCSeq: 0\r\n\r\n" * 50, "talks without answering"),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n" * 50, "talks without answering"),
        (b"\r\n" * 500, "empty lines"),
    ],
)
def test_what_is_no_rtsp_is_a_protocol_error(raw: bytes, says: str) -> None:
    failed = failure({"OPTIONS": always(raw)})
    assert isinstance(failed, ProtocolError)
    assert says in str(failed)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"DESCRIBE": lambda asked: asked.answer(404)}, StreamNotFound),
        ({"DESCRIBE": lambda asked: asked.answer(403)}, StreamRefused),
        ({"DESCRIBE": lambda asked: asked.answer(401)}, StreamRefused),
        ({"DESCRIBE": lambda asked: asked.answer(500)}, ServerFailed),
        ({"DESCRIBE": lambda asked: asked.answer(200, "<html>")}, ProtocolError),
        ({"DESCRIBE": lambda asked: asked.answer(200, "v=0\r\nm=audio 0 RTP/AVP 8\r\n")}, StreamUnsupported),
        ({"SETUP": lambda asked: asked.answer(461)}, StreamUnsupported),
        ({"SETUP": lambda asked: asked.answer(200)}, ProtocolError),
        ({"PLAY": lambda asked: asked.answer(455)}, ServerFailed),
        ({"PLAY": always(b"")}, ServerUnreachable),
    ],
)
def test_each_refusal_has_its_own_error(answers: dict[str, Answer], kind: type[ClientError]) -> None:
    assert type(failure(answers)) is kind


def test_a_server_that_says_nothing_or_only_sends_frames_is_not_waited_for_longer() -> None:
    settings = ClientSettings(open_timeout_s=0.3)
    endless: Callable[[Asked], bytes | None] = lambda asked: framed(b"x" * 1000) * 20_000  # noqa: E731
    for answer in (lambda asked: None, endless):
        began = time.monotonic()
        with ScriptedServer({"DESCRIBE": answer}) as server, pytest.raises(ServerUnreachable) as failed:
            opened(server, settings)
        assert failed.value.kind == "timeout"
        assert time.monotonic() - began < SOON_S


def test_a_challenge_is_not_answered_for_ever() -> None:
    nonces = itertools.count()

    def challenge(asked: Asked) -> bytes:
        return asked.answer(401, "", f'WWW-Authenticate: Digest realm="r", nonce="{next(nonces)}", stale=true')

    with ScriptedServer({"DESCRIBE": challenge}) as server, pytest.raises(StreamRefused) as failed:
        opened(server)
    assert failed.value.tried
    assert server.methods().count("DESCRIBE") == 3


def test_a_wrong_password_is_sent_once() -> None:
    challenge = 'WWW-Authenticate: Basic realm="r"'
    with ScriptedServer({"OPTIONS": lambda asked: asked.answer(401, "", challenge)}) as server:
        with pytest.raises(StreamRefused, match="wrong user name or password"):
            opened(server)
        assert len([asked for asked in server.asked if "authorization" in asked.headers]) == 1


def test_without_a_password_it_is_said_that_one_is_needed() -> None:
    challenge = 'WWW-Authenticate: Basic realm="r"'
    answers: dict[str, Answer] = {"OPTIONS": lambda asked: asked.answer(401, "", challenge)}
    with ScriptedServer(answers) as server, pytest.raises(StreamRefused, match="are needed"):
        RtspClient(server.url, settings=PATIENT).open()


def test_redirections_are_followed_but_not_for_ever_and_not_out_of_rtsp() -> None:
    with ScriptedServer(after_play=lambda to: to.sendall(framed(rtp(1, 0)))) as goal:
        for status in (301, 302):
            answers: dict[str, Answer] = {"DESCRIBE": lambda asked: asked.answer(status, "", f"Location: {goal.url}")}  # noqa: B023
            with ScriptedServer(answers) as server, opened(server) as client:
                assert client.receive().keyframe
    failed = failure({"DESCRIBE": lambda asked: asked.answer(302, "", f"Location: {asked.uri}")})
    assert isinstance(failed, ProtocolError) and "on and on" in str(failed)
    for elsewhere in ("http://127.0.0.1/", "nowhere", ""):
        failed = failure({"DESCRIBE": lambda asked: asked.answer(302, "", f"Location: {elsewhere}")})  # noqa: B023
        assert isinstance(failed, ProtocolError) and "an address that is none" in str(failed)


def test_a_password_in_clear_is_not_shown_to_where_a_redirection_leads() -> None:
    basic: Answer = lambda asked: asked.answer(401, "", 'WWW-Authenticate: Basic realm="r"')  # noqa: E731
    with ScriptedServer({"OPTIONS": basic}) as goal:
        elsewhere = goal.url.replace("127.0.0.1", "localhost")
        answers: dict[str, Answer] = {"DESCRIBE": lambda asked: asked.answer(302, "", f"Location: {elsewhere}")}
        with ScriptedServer(answers) as server, pytest.raises(StreamRefused):
            opened(server)
        assert goal.methods() and not any("authorization" in asked.headers for asked in goal.asked)


def test_frames_between_and_inside_answers_go_where_they_belong() -> None:
    frame = framed(rtp(1, 0))
    answers: dict[str, Answer] = {
        "PLAY": lambda asked: frame + framed(b"noise", 7) + b"\r\n" + asked.answer(200) + framed(rtp(2, 3600)),
    }
    with ScriptedServer(answers) as server, opened(server) as client:
        assert [client.receive().pts_90k for _ in range(2)] == [0, 3600]


def test_the_bytes_of_a_stream_may_come_in_any_pieces() -> None:
    stream = b"".join(framed(rtp(number, number * 3600, KEY + b"x" * 300)) for number in range(5))

    def drip(to: socket.socket) -> None:
        for at in range(0, len(stream), 7):
            to.sendall(stream[at : at + 7])

    with ScriptedServer(after_play=drip) as server, opened(server) as client:
        assert [client.receive().pts_90k for _ in range(5)] == [0, 3600, 7200, 10800, 14400]


@pytest.mark.parametrize("junk", [b"\0\1\2\3", b"GET / HTTP/1.1\r\n\r\n", b"x" * 40_000])
def test_junk_in_the_stream_ends_it_by_name(junk: bytes) -> None:
    def play(to: socket.socket) -> None:
        to.sendall(framed(rtp(1, 0)) + junk)

    with ScriptedServer(after_play=play) as server, opened(server) as client:
        client.receive()
        with pytest.raises(ProtocolError):
            client.receive()


def test_a_stream_that_stops_is_stalled() -> None:
    settings = ClientSettings(open_timeout_s=30.0, stall_timeout_s=STALL_S)
    once = ScriptedServer(after_play=lambda to: to.sendall(framed(rtp(1, 0))))
    with once as server, opened(server, settings) as client:
        client.receive()
        began = time.monotonic()
        with pytest.raises(StreamStalled):
            client.receive()
        assert 0.8 * STALL_S < time.monotonic() - began < SOON_S


@pytest.mark.parametrize("last", [b"", framed(struct.pack("!BBHI", 0x81, 203, 1, 7), 1)])
def test_a_stream_that_closes_or_says_goodbye_has_ended(last: bytes) -> None:
    def play(to: socket.socket) -> None:
        to.sendall(framed(rtp(1, 0)) + last)
        if not last:
            to.shutdown(socket.SHUT_RDWR)

    with ScriptedServer(after_play=play) as server, opened(server) as client:
        client.receive()
        with pytest.raises(StreamEnded):
            client.receive()


def test_a_unit_that_never_ends_takes_bounded_memory_and_is_a_stall() -> None:
    def play(to: socket.socket) -> None:
        for number in itertools.count():
            to.sendall(framed(rtp(number, 0, b"\x7c" + (b"\x85" if number == 0 else b"\x05") + b"x" * 60_000, False)))

    settings = ClientSettings(open_timeout_s=30.0, stall_timeout_s=STALL_S, max_unit_bytes=500_000)
    with ScriptedServer(after_play=play) as server, opened(server, settings) as client:
        with pytest.raises(StreamStalled):
            client.receive()
        receiver = client._receiver
        assert receiver is not None
        assert len(receiver._unit) <= 500_000
        assert client.stats.octets > 1_000_000


def test_a_marker_that_is_never_set_costs_one_interval_and_no_picture() -> None:
    def play(to: socket.socket) -> None:
        for number in range(6):
            to.sendall(framed(rtp(number, number * 3600, marker=False)))

    with ScriptedServer(after_play=play) as server, opened(server) as client:
        assert [client.receive().pts_90k for _ in range(5)] == [0, 3600, 7200, 10800, 14400]
        assert client.stats.unmarked_units == 5


SHORT: dict[str, Answer] = {"SETUP": with_headers("Session: 1 ; timeout=2", "Transport: RTP/AVP/TCP")}


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({}, ["GET_PARAMETER"]),
        ({"OPTIONS": with_headers("Public: DESCRIBE, PLAY")}, ["OPTIONS"]),
        ({"GET_PARAMETER": lambda asked: asked.answer(501)}, ["GET_PARAMETER", "OPTIONS"]),
    ],
)
def test_the_session_is_kept_alive_the_way_the_server_offers(answers: dict[str, Answer], wanted: list[str]) -> None:
    def play(to: socket.socket) -> None:
        for number in itertools.count():
            to.sendall(framed(rtp(number, number * 3600)))
            time.sleep(0.02)  # a camera with 50 pictures a second

    with ScriptedServer(SHORT | answers, play) as server, opened(server) as client:
        before = ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
        while len(server.methods()) < len(before) + len(wanted):
            client.receive()
        assert server.methods()[: len(before) + len(wanted)] == [*before, *wanted]
        assert all(asked.headers["session"] == "1" for asked in server.asked[len(before) :])


def test_a_server_that_asks_is_answered() -> None:
    heard: list[str] = []
    asking = b"OPTIONS * RTSP/1.0\r\nCSeq: 5\r\n\r\nANNOUNCE * RTSP/1.0\r\nCSeq: 6\r\n\r\n"
    answers: dict[str, Answer] = {"RTSP/1.0": lambda asked: heard.append(asked.uri)}
    with ScriptedServer(answers, lambda to: to.sendall(asking + framed(rtp(1, 0)))) as server:
        with opened(server) as client:
            client.receive()
        server.wait_for(lambda: len(heard) == 2)
    assert heard == ["200", "501"]


@pytest.mark.parametrize("where", ["connect", "describe", "receive"])
def test_close_from_another_thread_ends_every_wait(where: str) -> None:
    silent: Answer = lambda asked: None  # noqa: E731
    answers = {"connect": {"OPTIONS": silent}, "describe": {"DESCRIBE": silent}, "receive": {}}[where]
    with ScriptedServer(answers) as server:
        client = RtspClient(server.url, settings=PATIENT)
        closer = threading.Timer(0.3, client.close)
        closer.start()
        began = time.monotonic()
        with pytest.raises(ClientClosed):
            client.open()
            client.receive()
        assert time.monotonic() - began < SOON_S
        closer.join()
        client.close()
        with pytest.raises(ClientClosed):
            client.receive()
        if where == "receive":
            server.wait_for(lambda: server.methods()[-1] == "TEARDOWN")


def test_what_is_no_server_is_unreachable_by_kind() -> None:
    with kept_port() as port:
        for url, kind in ((f"rtsp://127.0.0.1:{port}/", "refused"), ("rtsp://camera.invalid/", "name")):
            with pytest.raises(ServerUnreachable) as failed:
                RtspClient(url, settings=PATIENT).open()
            assert failed.value.kind == kind
    with ScriptedServer({"OPTIONS": always(b"")}) as server, pytest.raises(ServerUnreachable) as failed:
        opened(server)
    assert failed.value.kind == "closed"


def test_rtsps_where_nobody_speaks_tls_is_a_protocol_error() -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"RTSP/1.0 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(ProtocolError, match="TLS"):
            RtspClient(f"rtsps://127.0.0.1:{listener.getsockname()[1]}/", settings=PATIENT).open()
        thread.join(5)


def test_the_description_says_where_the_track_is() -> None:
    description = SDP.replace("a=control:track1", "a=control:rtsp://elsewhere/track9").replace("a=control:*", "")
    answers: dict[str, Answer] = {
        "DESCRIBE": lambda asked: asked.answer(200, description, "Content-Base: rtsp://10.9.8.7/base/")
    }
    with ScriptedServer(answers) as server, opened(server):
        asked = {one.method: one.uri for one in server.asked}
    assert asked["SETUP"] == "rtsp://elsewhere/track9"
    assert asked["PLAY"] == "rtsp://10.9.8.7/base/"
