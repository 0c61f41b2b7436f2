"""A hostile device owns its nats-server and its credentials. It must reach nothing that is another's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from belvedere.bus import jwt, subjects
from belvedere.bus.client import Credentials
from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import BusError
from belvedere.bus.jetstream import publish_stored, stream_info
from belvedere.bus.jwt import Key, Kind
from belvedere.bus.keyring import write_secret
from belvedere.bus.kv import KeyValue
from belvedere.bus.server import NatsServer, free_port
from tests.support.hub import RunningHub, refusal, running_leaf

VICTIM, HOSTILE = "device-victim", "device-hostile"
SHORT_S = 0.1
SECRET = b'{"secret": "of the victim"}'


class Attacker:
    """The device's own server, with nothing held back, and its credentials."""

    def __init__(self, bus: Bus, user: Key, user_jwt: str) -> None:
        self.bus = bus
        self.user = user
        self.user_jwt = user_jwt

    async def ask(self, subject: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Message | None:
        """An answer, if anybody gives one."""
        try:
            return await self.bus.request(subject, body, timeout_s=SHORT_S, headers=headers)
        except BusError:
            return None


@pytest_asyncio.fixture
async def attacker(hub: RunningHub, tmp_path: Path) -> AsyncIterator[Attacker]:
    now, account, user = int(time.time()), jwt.new_key(Kind.ACCOUNT).public, jwt.new_key(Kind.USER)
    await (await hub.system()).push(hub.hub.keys.device_account_jwt(HOSTILE, account, now))
    user_jwt = hub.hub.keys.device_user_jwt(HOSTILE, account, user.public, now, now + 3600)
    folder = tmp_path / "hostile"
    folder.mkdir()
    write_secret(folder / "creds", jwt.creds_text(user_jwt, user).encode())
    port, local = free_port(), jwt.new_key(Kind.USER)
    conf = folder / "leaf.conf"
    conf.write_text(
        f"""
        listen: "127.0.0.1:{port}"
        accounts {{ DEV {{ users: [ {{ nkey: {local.public} }} ] }} }}
        leafnodes {{ remotes: [ {{
            urls: {json.dumps(hub.hub.leaf_urls)}, account: DEV, credentials: "{folder / "creds"}"
            tls {{ ca_file: "{hub.hub.tls.ca}" }}
        }} ] }}
        """
    )
    server = await NatsServer.start("hostile", conf, folder / "log")
    try:
        async with await Bus.connect(f"nats://127.0.0.1:{port}", Credentials.of_key(local), "hostile") as bus:
            attack = Attacker(bus, user, user_jwt)
            async with asyncio.timeout(30):
                while True:
                    if await attack.ask(subjects.CTL_TARGET_GET) is not None:
                        break
                    await asyncio.sleep(0.05)  # refused at once, and nobody tells when that changes
            yield attack
    finally:
        await server.stop()


async def test_it_cannot_write_what_is_anothers(hub: RunningHub, attacker: Attacker) -> None:
    target, reported = KeyValue(hub.bus, "target"), KeyValue(hub.bus, "reported")
    await target.put(VICTIM, SECRET)
    await reported.put(VICTIM, SECRET)
    await target.put(HOSTILE, b"{}")
    reached: list[str] = []

    async def seen(message: Message) -> None:
        if not message.subject.startswith(("_INBOX", "_R_", "$JS.ACK")):
            reached.append(message.subject)

    await hub.bus.subscribe(">", seen)
    heard: list[str] = []
    forged = [
        f"$KV.target.{VICTIM}",
        f"$KV.target.{HOSTILE}",
        f"$KV.reported.{VICTIM}",
        f"up.{VICTIM}.heartbeat",
        f"up.{VICTIM}.lease",
        f"up.{VICTIM}.logs",
        f"up.{VICTIM}.credentials",
        f"dev.{VICTIM}.reboot",
        f"dev.{HOSTILE}.reboot",
        f"rsp.{VICTIM}.0123",
        f"ctl.reported.put.{VICTIM}",
        "belvedere.events.registry.device.deleted",
        "$JS.API.STREAM.PURGE.KV_target",
        "$JS.hub.API.STREAM.PURGE.KV_target",
        "$JS.API.STREAM.DELETE.KV_target",
        "$JS.hub.API.STREAM.DELETE.KV_target",
        "$JS.API.CONSUMER.CREATE.KV_target",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$JS.ACK.EVENTS.x.1.1.1.1.1",
    ]

    async def victims(message: Message) -> None:
        heard.append(message.subject)

    await hub.bus.subscribe(f"dev.{VICTIM}.>", victims)
    for subject in forged:
        await attacker.bus.publish(subject, b'{"forged": true}')
        await attacker.ask(subject, b'{"forged": true}')
        # Answers that the hub gives for us, to subjects of others: the reply of an accepted message is chosen by us.
        await attacker.bus.publish(subjects.up_logs(HOSTILE), b'{"entries": []}', reply=subject)
        await attacker.bus.publish(subjects.CTL_REPORTED_PUT, b"{}", reply=subject)
        await attacker.bus.publish(subjects.CTL_TARGET_GET, b"", reply=subject)
    await attacker.bus.flush()
    await attacker.ask(subjects.up_logs(HOSTILE), b"the last one, so that all before it have arrived")
    assert set(reached) <= {
        f"up.{HOSTILE}.logs",
        f"$KV.reported.{HOSTILE}",
        f"$JS.API.DIRECT.GET.KV_target.$KV.target.{HOSTILE}",
    }
    assert heard == []
    for store in (target, reported):
        entry = await store.get(VICTIM)
        assert entry is not None and entry.value == SECRET
    own = await target.get(HOSTILE)
    assert own is not None and own.value == b"{}"


async def test_it_cannot_read_what_is_anothers(hub: RunningHub, attacker: Attacker, tmp_path: Path) -> None:
    target, reported = KeyValue(hub.bus, "target"), KeyValue(hub.bus, "reported")
    await target.put(HOSTILE, b"mine")
    await target.put(VICTIM, SECRET)
    await reported.put(VICTIM, SECRET)
    got: list[Message] = []

    async def take(message: Message) -> None:
        got.append(message)

    await attacker.bus.subscribe(">", take)
    bodies = [
        {"last_by_subj": f"$KV.target.{VICTIM}"},
        {"seq": 2},
        {"multi_last": ["$KV.target.>"]},
        {"seq": 1, "batch": 10, "next_by_subj": "$KV.target.>"},
        {"next_by_subj": f"$KV.target.{VICTIM}"},
    ]
    for body in bodies:
        await attacker.ask(subjects.CTL_TARGET_GET, json.dumps(body).encode())
    for subject in (
        f"$JS.API.DIRECT.GET.KV_target.$KV.target.{VICTIM}",
        "$JS.API.STREAM.MSG.GET.KV_target",
        "$JS.hub.API.STREAM.MSG.GET.KV_target",
        f"ctl.target.get.{VICTIM}",
        f"up.{VICTIM}.credentials",
    ):
        for body in bodies:
            await attacker.ask(subject, json.dumps(body).encode())
    async with running_leaf(hub, tmp_path / "victim", VICTIM) as victim:
        await publish_stored(victim.bus, subjects.up_logs(VICTIM), SECRET)
        await target.put(VICTIM, SECRET + b" ")
        await hub.bus.publish(f"dev.{VICTIM}.command", SECRET)
        await hub.bus.publish("belvedere.events.x.y.z", SECRET)
        await hub.bus.flush()
    # What the hub has sent to a device before arrives before its answer to it.
    async with asyncio.timeout(30):
        while await attacker.ask(subjects.CTL_TARGET_GET) is None:
            pass  # it waits by itself
    assert got, "it hears its own"
    assert not [message for message in got if SECRET in message.data]


async def test_it_cannot_empty_a_bucket_with_the_headers_of_its_own_report(hub: RunningHub, attacker: Attacker) -> None:
    reported = KeyValue(hub.bus, "reported")
    await reported.put(VICTIM, SECRET)
    await publish_stored(hub.bus, subjects.up_logs(VICTIM), SECRET)
    for headers in (
        {"Nats-Rollup": "all"},
        {"Nats-Rollup": "sub"},
        {"KV-Operation": "PURGE", "Nats-Rollup": "all"},
        {"Nats-TTL": "1s"},
        {"Nats-Incr": "1"},
        {"Nats-Batch-Id": "x", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"},
        {"Nats-Schedule": "@at 2026-01-01T00:00:00Z", "Nats-Schedule-Target": f"$KV.reported.{VICTIM}"},
    ):
        for subject in (subjects.CTL_REPORTED_PUT, subjects.up_logs(HOSTILE)):
            await attacker.ask(subject, b"{}", headers)
    entry = await reported.get(VICTIM)
    assert entry is not None and entry.value == SECRET
    assert int((await stream_info(hub.bus, "UP_LOGS"))["state"]["first_seq"]) == 1


async def test_it_cannot_use_its_credentials_as_a_client(hub: RunningHub, attacker: Attacker) -> None:
    assert await refusal(hub.hub.url, Credentials.of_key(attacker.user, attacker.user_jwt))


async def test_it_cannot_forge_credentials_of_another(hub: RunningHub, attacker: Attacker) -> None:
    now, key = int(time.time()), jwt.new_key(Kind.USER)
    for account in (hub.hub.keys.fleet.public, hub.hub.keys.system.public):
        signed_by_itself = jwt.encode(
            key.public, "x", jwt.user_claims(issuer_account=account), attacker.user, issued_at=now
        )
        signed_by_devices = jwt.encode(
            key.public, "x", jwt.user_claims(issuer_account=account), hub.hub.keys.device_signing, issued_at=now
        )
        for forged in (signed_by_itself, signed_by_devices):
            assert await refusal(hub.hub.url, Credentials.of_key(key, forged))
