"""The hub's start, keys, certificates, accounts and streams."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from belvedere.bus import jwt, server, streams, tls
from belvedere.bus.accounts import Connections
from belvedere.bus.errors import BusError, InvalidDocument, ServerFailed
from belvedere.bus.hub import Hub, HubConfig
from belvedere.bus.jetstream import publish_stored, stream_info
from belvedere.bus.jwt import Kind
from belvedere.bus.kv import get_target
from tests.support.hub import RunningHub, linked, running_hub, running_leaf


async def test_secrets_are_for_their_owner_only_and_stay_what_they_are(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        keys = hub.hub.keys
        files = [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
        assert len(files) == 13
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        conf = (tmp_path / "nats" / "hub.conf").read_text()
        for name in ("operator", "operator_signing", "system_signing", "fleet_signing", "device_signing"):
            assert getattr(keys, name).seed.reveal() not in conf
        before = {path: path.read_bytes() for path in files}
    async with running_hub(tmp_path):
        assert {path: path.read_bytes() for path in files} == before


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        await publish_stored(hub.bus, "belvedere.events.a.b.c", b"one", msg_id="1")
    async with running_hub(tmp_path) as hub:
        assert (await stream_info(hub.bus, "EVENTS"))["state"]["messages"] == 1
        assert (await publish_stored(hub.bus, "belvedere.events.a.b.c", b"one", msg_id="1")).duplicate


async def test_every_stream_has_a_bound_and_takes_no_rollup(hub: RunningHub) -> None:
    for wanted in streams.configurations():
        config = (await stream_info(hub.bus, wanted["name"]))["config"]
        assert config["max_bytes"] > 0 and not config.get("allow_rollup_hdrs")
        assert config["subjects"] == wanted["subjects"]
    await streams.ensure(hub.bus)


async def test_a_port_that_is_taken_gives_the_servers_own_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerFailed, match="address already in use"):
            await Hub.start(HubConfig(tmp_path, client_port=taken.getsockname()[1]))


async def test_a_configuration_that_is_wrong_is_refused_before_it_is_used(tmp_path: Path) -> None:
    conf = tmp_path / "bad.conf"
    conf.write_text("listen: [")
    with pytest.raises(ServerFailed, match=r"bad\.conf"):
        await server.check(conf)


async def test_the_hub_tells_when_links_come_and_go(hub: RunningHub, tmp_path: Path) -> None:
    heard: asyncio.Queue[Connections] = asyncio.Queue()
    accounts = await hub.system()
    await accounts.watch(heard.put)

    async def next_of(account: str, leafs: int) -> None:
        async with asyncio.timeout(30):
            while await heard.get() != Connections(account, 0, leafs):
                continue

    async with running_leaf(hub, tmp_path / "leaf", "device-a") as leaf:
        await next_of(leaf.account, 1)
    await next_of(leaf.account, 0)


async def test_a_revoked_device_loses_its_live_link_at_once_and_others_keep_theirs(
    hub: RunningHub, tmp_path: Path
) -> None:
    accounts = await hub.system()
    async with (
        running_leaf(hub, tmp_path / "a", "device-a") as leaf,
        running_leaf(hub, tmp_path / "b", "device-b") as other,
    ):
        now = int(time.time())
        closed = hub.hub.keys.device_account_jwt(
            "device-a", leaf.account, now, revocations={leaf.user.public: now}, closed=True
        )
        gone: asyncio.Queue[Connections] = asyncio.Queue()
        await accounts.watch(gone.put)
        await accounts.push(closed)
        async with asyncio.timeout(30):
            while await gone.get() != Connections(leaf.account, 0, 0):
                continue
        with pytest.raises(BusError):
            await get_target(leaf.bus, timeout_s=0.3)
        assert await get_target(other.bus) is None
        # Pushed open again, as a mistaken deletion would be put right, it comes back by itself.
        await accounts.push(hub.hub.keys.device_account_jwt("device-a", leaf.account, now + 1))
        await linked(leaf.bus)


async def test_an_account_of_a_stranger_is_not_pushed(hub: RunningHub) -> None:
    accounts, stranger = await hub.system(), jwt.new_key(Kind.OPERATOR)
    fleet = hub.hub.keys.fleet.public
    claims = jwt.fleet_account_claims(jwt.new_key(Kind.ACCOUNT).public)
    for forged in (
        jwt.encode(fleet, "FLEET", claims, stranger, issued_at=int(time.time())),
        hub.hub.keys.operator_jwt(int(time.time())),
        "a.b.c",
        "",
    ):
        with pytest.raises(InvalidDocument):
            await accounts.push(forged)


def test_certificates_are_renewed_before_their_end_and_for_new_names_while_the_authority_stays(tmp_path: Path) -> None:
    made = tls.prepare(tmp_path)
    authority, certificate = made.ca.read_bytes(), made.certificate.read_bytes()
    assert tls.prepare(tmp_path).certificate.read_bytes() == certificate
    named = tls.prepare(tmp_path, ["hub.example.org", "192.0.2.7"]).certificate.read_bytes()
    assert named != certificate
    later = datetime.now(UTC) + timedelta(days=tls.SERVER_DAYS - tls.RENEW_BEFORE_DAYS + 1)
    renewed = tls.prepare(tmp_path, ["hub.example.org", "192.0.2.7"], now=later)
    assert renewed.certificate.read_bytes() != named and renewed.ca.read_bytes() == authority


async def test_a_client_that_trusts_the_authority_and_nothing_else_connects(tmp_path: Path) -> None:
    made = tls.prepare(tmp_path)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=made.server_context())
    port = listener.sockets[0].getsockname()[1]
    for name in ("127.0.0.1", "localhost"):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=made.client_context(), server_hostname=name)
        writer.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", port, ssl=made.client_context(), server_hostname="other.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
    listener.close()
    await listener.wait_closed()
