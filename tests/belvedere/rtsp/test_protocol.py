"""The server against clients that misbehave: a bare socket that says what it likes."""

from __future__ import annotations

import asyncio
import hashlib
import re
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from belvedere.chassis.secret import Secret
from belvedere.rtsp import AccessUnit, FileSource, ListenFailed, PathTaken, RtspServer, Source, StreamDescription
from belvedere.rtsp._auth import Authenticator
from tests.support.clips import make_clip
from tests.support.waiting import until

SPS, PPS = bytes.fromhex("6742c01edb0280bfe5c04400000300040000030050"), bytes.fromhex("68ca8f20")


class Client:
    """One connection, spoken by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.cseq = 0

    @classmethod
    async def to(cls, server: RtspServer) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    async def say(self, raw: bytes) -> tuple[int, dict[str, list[str]], str]:
        self.writer.write(raw)
        return await self.hear()

    async def ask(self, method: str, uri: str, **headers: str) -> tuple[int, dict[str, list[str]], str]:
        self.cseq += 1
        lines = [f"{method} {uri} RTSP/1.0", f"CSeq: {self.cseq}"] + [f"{k}: {v}" for k, v in headers.items()]
        status, found, body = await self.say(("\r\n".join(lines) + "\r\n\r\n").encode())
        assert found["cseq"] == [str(self.cseq)]
        return status, found, body

    async def hear(self) -> tuple[int, dict[str, list[str]], str]:
        """The next response; interleaved frames before it are left out."""
        async with asyncio.timeout(30):
            while (first := await self.reader.readexactly(1)) == b"$":
                _, length = struct.unpack("!BH", await self.reader.readexactly(3))
                await self.reader.readexactly(length)
            head = (first + await self.reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split()[1])
            headers: dict[str, list[str]] = {}
            for line in head.split("\r\n")[1:]:
                name, colon, value = line.partition(": ")
                if colon:
                    headers.setdefault(name.lower(), []).append(value)
            body = await self.reader.readexactly(int(headers.get("content-length", ["0"])[0]))
            return status, headers, body.decode()

    async def closed(self, timeout_s: float = 30) -> bool:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    if not await self.reader.read(65536):
                        return True
                except ConnectionResetError:
                    return True

    async def play(self, url: str) -> str:
        """SETUP over TCP and PLAY; the session's id."""
        status, headers, _ = await self.ask(
            "SETUP", url + "/trackID=0", Transport="RTP/AVP/TCP;unicast;interleaved=0-1"
        )
        assert status == 200
        session = headers["session"][0].split(";")[0]
        assert (await self.ask("PLAY", url, Session=session))[0] == 200
        return session


class Noise(Source):
    """As many bytes as can be taken, a key frame every tenth picture: no viewer keeps up that does not read."""

    def __init__(self, size: int = 200_000) -> None:
        self.size = size

    async def describe(self) -> StreamDescription:
        return StreamDescription("h264", (SPS, PPS))

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        number = 0
        while True:
            key = number % 10 == 0
            data = b"\0\0\0\1" + (b"\x65" if key else b"\x41") + b"\xaa" * self.size
            yield AccessUnit(data, number * 900, key)
            number += 1
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1.0)


@pytest.fixture
async def server(clip: Path) -> AsyncIterator[RtspServer]:
    async with RtspServer("127.0.0.1", 0) as made:
        made.add("camera", FileSource(clip))
        made.add("noise", Noise())
        yield made


@pytest.mark.parametrize(
    ("raw", "status", "survives"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400, False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, False),
        (b"DESCRIBE\r\n\r\n", 400, False),
        (b"OPTIONS * RTSP/1.0\r\nno colon here\r\n\r\n", 400, False),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999\r\n\r\n", 413, False),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n", 400, False),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 413, False),
        (b"OPTIONS * RTSP/1.0\r\n" + b"X: y\r\n" * 200 + b"\r\n", 413, False),
        (b"\r\n" * 50, 400, False),
        (b"OPTIONS * RTSP/1.0\r\n\r\n", 400, True),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: minus one\r\n\r\n", 400, True),
        (b"OPTIONS * RTSP/1.0\r\nCSeq: -1\r\n\r\n", 400, True),
        (b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n", 505, True),
        (b"FROBNICATE * RTSP/1.0\r\nCSeq: 1\r\n\r\n", 501, True),
        (b"RECORD rtsp://x/camera RTSP/1.0\r\nCSeq: 1\r\n\r\n", 405, True),
        (b"DESCRIBE http://x/camera RTSP/1.0\r\nCSeq: 1\r\n\r\n", 400, True),
        (b"DESCRIBE rtsp://x/../../etc/passwd RTSP/1.0\r\nCSeq: 1\r\n\r\n", 404, True),
        (b"DESCRIBE rtsp://[x/camera RTSP/1.0\r\nCSeq: 1\r\n\r\n", 400, True),
        (b"DESCRIBE rtsp://x/camera RTSP/1.0\r\nCSeq: 1\r\nRequire: magic\r\n\r\n", 551, True),
        (b"SETUP rtsp://x/camera RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;multicast\r\n\r\n", 461, True),
        (b"SETUP rtsp://x/camera RTSP/1.0\r\nCSeq: 1\r\n\r\n", 461, True),
        (
            b"SETUP rtsp://x/camera RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;unicast;client_port=70000-70001\r\n\r\n",
            461,
            True,
        ),
        (b"PLAY rtsp://x/camera RTSP/1.0\r\nCSeq: 1\r\nSession: 12345678\r\n\r\n", 454, True),
        (b"TEARDOWN rtsp://x/camera RTSP/1.0\r\nCSeq: 1\r\n\r\n", 454, True),
    ],
)
async def test_a_bad_request_gets_its_status_and_hurts_nobody(
    server: RtspServer, raw: bytes, status: int, survives: bool
) -> None:
    other, bad = await Client.to(server), await Client.to(server)
    await other.play(server.url("camera"))
    assert (await bad.say(raw))[0] == status
    if survives:
        assert (await bad.ask("OPTIONS", "*"))[0] == 200
    else:
        assert await bad.closed()
    assert (await other.ask("GET_PARAMETER", server.url("camera")))[0] == 200


async def test_options_name_what_there_is(server: RtspServer) -> None:
    status, headers, _ = await (await Client.to(server)).ask("OPTIONS", "*")
    assert status == 200
    assert headers["public"] == ["OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"]


async def test_a_description_has_the_parameter_sets_and_a_base(server: RtspServer) -> None:
    url = server.url("camera")
    status, headers, body = await (await Client.to(server)).ask("DESCRIBE", url)
    assert status == 200
    assert headers["content-base"] == [url + "/"]
    assert "a=rtpmap:96 H264/90000" in body
    assert re.search(r"sprop-parameter-sets=Z[\w+/=]+,a[\w+/=]+", body)


async def test_a_session_goes_through_its_states(server: RtspServer) -> None:
    client, url = await Client.to(server), server.url("camera")
    session = await client.play(url)
    assert server.stats("camera").viewers == 1
    transport = "RTP/AVP/TCP;unicast;interleaved=2-3"
    assert (await client.ask("SETUP", url, Transport=transport, Session=session))[0] == 455
    assert (await client.ask("GET_PARAMETER", url, Session=session))[0] == 200
    assert (await client.ask("GET_PARAMETER", url, Session="ffffffff"))[0] == 454
    stranger = await Client.to(server)
    assert (await stranger.ask("TEARDOWN", url, Session=session))[0] == 454
    assert (await client.ask("TEARDOWN", url, Session=session))[0] == 200
    assert server.stats("camera").viewers == 0
    await client.play(url)
    assert server.stats("camera").viewers == 1


async def test_sender_reports_tie_time_stamps_to_the_clock(server: RtspServer) -> None:
    client, url = await Client.to(server), server.url("camera")
    await client.play(url)
    stamps, report = [], b""
    async with asyncio.timeout(30):
        while not report or len(stamps) < 2:
            assert await client.reader.readexactly(1) == b"$"
            channel, length = struct.unpack("!BH", await client.reader.readexactly(3))
            data = await client.reader.readexactly(length)
            if channel == 1:
                report = data
            else:
                stamps.append(struct.unpack("!BBHII", data[:12]))
    version, kind, _, source, seconds, _, stamp = struct.unpack("!BBHIIII", report[:20])
    assert (version, kind, source) == (0x80, 200, stamps[0][4])
    assert abs(seconds - 2_208_988_800 - time.time()) < 60
    assert (stamp - stamps[0][3]) & 0xFFFFFFFF < 90_000
    assert [b[2] - a[2] & 0xFFFF for a, b in pairwise(stamps)] == [1] * (len(stamps) - 1)


async def test_a_viewer_that_never_reads_loses_pictures_and_nobody_else_does(server: RtspServer) -> None:
    deaf, other, url = await Client.to(server), await Client.to(server), server.url("noise")
    setup = f"SETUP {url} RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
    _, headers, _ = await deaf.say(setup.encode())
    session = headers["session"][0].split(";")[0]
    deaf.writer.write(f"PLAY {url} RTSP/1.0\r\nCSeq: 2\r\nSession: {session}\r\n\r\n".encode())
    await other.play(url)
    units = 0
    async with asyncio.timeout(30):
        while units < 60 or not server.stats("noise").units_dropped:
            assert await other.reader.readexactly(1) == b"$"
            channel, length = struct.unpack("!BH", await other.reader.readexactly(3))
            data = await other.reader.readexactly(length)
            units += channel == 0 and bool(data[1] & 0x80)
    assert server.stats("noise").viewers == 2
    deaf.writer.close()


async def test_silence_ends_a_session_and_a_keep_alive_keeps_it(clip: Path) -> None:
    async with RtspServer("127.0.0.1", 0, session_timeout_s=3) as server:
        server.add("camera", FileSource(clip))
        silent, lively = await Client.to(server), await Client.to(server)
        session = await lively.play(server.url("camera"))
        began = time.monotonic()
        await silent.play(server.url("camera"))
        closed = asyncio.create_task(silent.closed())
        while not closed.done() or time.monotonic() - began < 4:
            assert (await lively.ask("GET_PARAMETER", server.url("camera"), Session=session))[0] == 200
            await asyncio.sleep(0.1)
        assert await closed
        await until(lambda: server.stats("camera").viewers == 1)


def digest(challenge: str, method: str, uri: str, password: str = "secret", user: str = "admin") -> str:
    fields = dict(re.findall(r'(\w+)="?([^",]+)"?', challenge))
    make = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[fields["algorithm"]]

    def h(text: str) -> str:
        return make(text.encode()).hexdigest()

    middle = f"{fields['nonce']}:00000001:abcdef:auth"
    secret = h(f"{user}:{fields['realm']}:{password}")
    response = h(f"{secret}:{middle}:{h(f'{method}:{uri}')}")
    return (
        f'Digest username="{user}", realm="{fields["realm"]}", nonce="{fields["nonce"]}", uri="{uri}", '
        f'algorithm={fields["algorithm"]}, qop=auth, nc=00000001, cnonce="abcdef", response="{response}"'
    )


@pytest.mark.parametrize("which", [0, 1], ids=["SHA-256", "MD5"])
async def test_digest_opens_with_the_right_password_only(clip: Path, which: int) -> None:
    async with RtspServer("127.0.0.1", 0, users={"admin": Secret("secret")}) as server:
        server.add("camera", FileSource(clip))
        client, url = await Client.to(server), server.url("camera")
        status, headers, _ = await client.ask("DESCRIBE", url)
        assert status == 401
        challenge = headers["www-authenticate"][which]
        wrong = digest(challenge, "DESCRIBE", url, "guess")
        assert (await client.ask("DESCRIBE", url, Authorization=wrong))[0] == 401
        other_method = digest(challenge, "SETUP", url)
        assert (await client.ask("DESCRIBE", url, Authorization=other_method))[0] == 401
        other_path = digest(challenge, "DESCRIBE", url + "x")
        assert (await client.ask("DESCRIBE", url, Authorization=other_path))[0] == 401
        nobody = digest(challenge, "DESCRIBE", url, user="nobody")
        assert (await client.ask("DESCRIBE", url, Authorization=nobody))[0] == 401
        right = digest(challenge, "DESCRIBE", url)
        assert (await client.ask("DESCRIBE", url, Authorization=right))[0] == 200
        assert (await client.ask("DESCRIBE", server.url("none"), Authorization="Basic AAAA"))[0] == 401


class Hourglass(RtspServer):
    """Its nonces age by a clock that the test sets."""

    now_s = 0.0

    def authenticator(self) -> Authenticator:
        return Authenticator(self._users, self._schemes, clock=lambda: self.now_s, nonce_lifetime_s=300.0)


async def test_an_old_nonce_is_stale_and_a_strange_one_too(clip: Path) -> None:
    async with Hourglass("127.0.0.1", 0, users={"admin": Secret("secret")}) as server:
        server.add("camera", FileSource(clip))
        client, url = await Client.to(server), server.url("camera")
        challenge = (await client.ask("DESCRIBE", url))[1]["www-authenticate"][0]
        server.now_s = 301.0
        status, headers, _ = await client.ask("DESCRIBE", url, Authorization=digest(challenge, "DESCRIBE", url))
        assert status == 401
        fresh = headers["www-authenticate"][0]
        assert "stale=true" in fresh
        assert (await client.ask("DESCRIBE", url, Authorization=digest(fresh, "DESCRIBE", url)))[0] == 200
        elsewhere = await Client.to(server)
        status, headers, _ = await elsewhere.ask("DESCRIBE", url, Authorization=digest(fresh, "DESCRIBE", url))
        assert status == 401
        assert "stale=true" in headers["www-authenticate"][0]


async def test_guessing_passwords_ends_the_connection(clip: Path) -> None:
    async with RtspServer("127.0.0.1", 0, users={"admin": Secret("secret")}) as server:
        server.add("camera", FileSource(clip))
        client, url = await Client.to(server), server.url("camera")
        challenge = (await client.ask("DESCRIBE", url))[1]["www-authenticate"][0]
        for number in range(8):
            assert (await client.ask("DESCRIBE", url, Authorization=digest(challenge, "DESCRIBE", url, f"{number}")))[
                0
            ] == 401
        assert await client.closed()


async def test_a_taken_port_or_path_is_a_typed_error(server: RtspServer, clip: Path) -> None:
    with pytest.raises(ListenFailed, match="another port"):
        await RtspServer("127.0.0.1", server.port).start()
    with pytest.raises(PathTaken):
        server.add("/camera/", FileSource(clip))
