"""The client against real servers: our own and gst-rtsp-server, both transports, both codecs, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import itertools
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from belvedere.rtsp import (
    ClientSettings,
    FileSource,
    ReceivedUnit,
    RtspClient,
    RtspServer,
    ServerUnreachable,
    StreamDescription,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamUnsupported,
    join_annexb,
)
from belvedere.rtsp._auth import Scheme
from belvedere.secret import Secret
from tests.support.clips import make_clip, pattern
from tests.support.gst_camera import GstCamera, require_gst
from tests.support.waiting import until

SIZE, FPS = (320, 240), 25
USER, PASSWORD = "ad min@", 'p:a/ss@ wörd"\\'
Transport = Literal["tcp", "udp"]
BOTH = pytest.mark.parametrize("transport", ["tcp", "udp"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        codec: make_clip(folder / f"{codec}.mp4", codec, *SIZE, fps=FPS, seconds=1.0, keyframe_every_s=0.5)
        for codec in ("h264", "hevc")
    }


@contextlib.asynccontextmanager
async def serving(
    clips: dict[str, Path], schemes: tuple[Scheme, ...] = ("SHA-256", "MD5"), nonce_lifetime_s: float = 300.0
) -> AsyncIterator[RtspServer]:
    users = {USER: Secret(PASSWORD)}
    async with RtspServer("127.0.0.1", 0, users=users, schemes=schemes, nonce_lifetime_s=nonce_lifetime_s) as made:
        for codec, clip in clips.items():
            made.add(f"cameras/{codec}", FileSource(clip))
        yield made


def watch(
    url: str, count: int, transport: Transport = "tcp", user: str = USER, password: str = PASSWORD
) -> tuple[StreamDescription, list[ReceivedUnit]]:
    """So many units."""
    with RtspClient(url, user, Secret(password), ClientSettings(transport=transport)) as client:
        description = client.open()
        return description, list(itertools.islice(client.units(), count))


def decoded(description: StreamDescription, units: list[ReceivedUnit]) -> list[np.ndarray]:
    """The pictures, one for each unit, as it comes in."""
    context = av.CodecContext.create(description.codec, "r")
    context.thread_type = "SLICE"
    if description.parameter_sets:
        context.extradata = join_annexb(description.parameter_sets)
    pictures = []
    for unit in units:
        [frame] = context.decode(av.Packet(unit.data))
        pictures.append(frame.to_ndarray(format="rgb24")[::4, ::4].astype(int))
    return pictures


def shown(pictures: list[np.ndarray]) -> list[int]:
    """Which pictures of the clip these are."""
    wanted = [pattern(index, *SIZE)[::4, ::4].astype(int) for index in range(FPS)]
    return [int(np.argmin([np.abs(picture - one).mean() for one in wanted])) for picture in pictures]


@BOTH
@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_every_picture_of_our_server_comes_whole_and_in_order(
    clips: dict[str, Path], codec: str, transport: Transport
) -> None:
    async with serving(clips) as server:
        description, units = await asyncio.to_thread(watch, server.url(f"cameras/{codec}"), FPS + 5, transport)
        await until(lambda: server.stats(f"cameras/{codec}").viewers == 0)
    assert description.codec == codec and description.parameter_sets
    assert all((after - before) % FPS == 1 for before, after in itertools.pairwise(shown(decoded(description, units))))
    assert units[0].keyframe and {unit.lost for unit in units} == {0}
    assert all(later.pts_90k - earlier.pts_90k == 3600 for earlier, later in itertools.pairwise(units))
    assert all(unit.first_packet_ns <= unit.last_packet_ns <= time.monotonic_ns() for unit in units)
    captured = [unit.captured_unix_s for unit in units[5:]]
    assert all(moment is not None and abs(time.time() - moment) < 10 for moment in captured)


@BOTH
@pytest.mark.debian
@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_every_picture_of_an_independent_server_comes_whole_and_in_order(
    clips: dict[str, Path], codec: str, transport: Transport
) -> None:
    require_gst()
    with GstCamera(clips[codec], user="admin", password="d1gest/#") as camera:
        description, units = await asyncio.to_thread(watch, camera.url, FPS + 5, transport, "admin", "d1gest/#")
        with pytest.raises(StreamRefused):
            await asyncio.to_thread(watch, camera.url, 1, transport, "admin", "wrong")
        with pytest.raises(StreamNotFound):
            await asyncio.to_thread(watch, camera.url + "/no", 1, transport, "admin", "d1gest/#")
    start = next(number for number, unit in enumerate(units) if unit.keyframe)
    numbers = shown(decoded(description, units[start:]))
    assert all((after - before) % FPS == 1 for before, after in itertools.pairwise(numbers)), numbers
    assert {unit.lost for unit in units} == {0}


@pytest.mark.debian
def test_what_an_independent_server_sends_instead_of_video_is_named() -> None:
    require_gst()
    sound = "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0"
    with GstCamera(None, launch=sound) as camera, pytest.raises(StreamUnsupported) as failed:
        watch(camera.url, 1)
    assert failed.value.only_sound


@pytest.mark.parametrize("schemes", [("SHA-256",), ("MD5",), ("Basic",), ("SHA-256", "MD5", "Basic")])
async def test_every_kind_of_authentication_takes_any_password(
    clips: dict[str, Path], schemes: tuple[Scheme, ...]
) -> None:
    async with serving(clips, schemes) as server:
        url = server.url("cameras/h264")
        assert len((await asyncio.to_thread(watch, url, 3))[1]) == 3
        inside = url.replace("rtsp://", "rtsp://ad%20min%40:p%3Aa%2Fss%40%20w%C3%B6rd%22%5C@")
        assert len((await asyncio.to_thread(watch, inside, 3, "tcp", "", ""))[1]) == 3
        for user, password in ((USER, "wrong"), ("nobody", PASSWORD), ("", "")):
            with pytest.raises(StreamRefused) as failed:
                await asyncio.to_thread(watch, url, 1, "tcp", user, password)
            assert failed.value.status == 401
        with pytest.raises(StreamNotFound):
            await asyncio.to_thread(watch, server.url("cameras/none"), 1)


@BOTH
async def test_a_path_that_is_removed_ends_the_stream(clips: dict[str, Path], transport: Transport) -> None:
    async with serving(clips) as server:
        watching = asyncio.create_task(
            asyncio.to_thread(watch, server.url("cameras/h264"), 100_000, transport), name="watch"
        )
        await until(lambda: server.stats("cameras/h264").units_sent > 3)
        await server.remove("cameras/h264")
        with pytest.raises(StreamEnded):
            await asyncio.wait_for(watching, 30)


async def test_a_session_outlives_its_nonce_and_its_timeout(clips: dict[str, Path]) -> None:
    users = {USER: Secret(PASSWORD)}
    async with RtspServer("127.0.0.1", 0, users=users, session_timeout_s=3, nonce_lifetime_s=0.5) as server:
        server.add("camera", FileSource(clips["h264"]))
        _, units = await asyncio.to_thread(watch, server.url("camera"), 4 * FPS)
    assert units[-1].last_packet_ns - units[0].last_packet_ns > 3.5e9


@contextlib.asynccontextmanager
async def behind_tls(port: int, folder: Path) -> AsyncIterator[int]:
    """A port that speaks TLS, with a certificate of its own, for the one that does not."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "camera.pem").write_bytes(private + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "camera.pem")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):  # either side may leave
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listener:
        yield listener.sockets[0].getsockname()[1]


async def test_rtsps_takes_a_cameras_own_certificate_unless_told_to_check(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    async with serving(clips) as server, behind_tls(server.port, tmp_path) as port:
        url = f"rtsps://127.0.0.1:{port}/cameras/h264"
        _, units = await asyncio.to_thread(watch, url, FPS)
        assert {unit.lost for unit in units} == {0}
        strict = RtspClient(url, USER, Secret(PASSWORD), ClientSettings(verify_tls=True))
        with pytest.raises(ServerUnreachable) as failed:
            await asyncio.to_thread(strict.open)
        assert failed.value.kind == "certificate"
        await until(lambda: server.stats("cameras/h264").viewers == 0)
