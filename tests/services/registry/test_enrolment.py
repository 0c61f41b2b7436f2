"""Enrolment, leases and blobs over real HTTPS; identity over a real leaf."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from belvedere.bus import jwt, leaf, subjects
from belvedere.bus.jwt import Kind
from belvedere.bus.keyring import write_secret
from belvedere.chunks import pack, pack_digests
from belvedere.chunks.store import ChunkStore
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from services.registry.store import DeviceRow
from tests.support.cloud import RunningCloud
from tests.support.device import SEAL_KEY, TestDevice, provision


async def age(device: TestDevice, **fields: object) -> None:
    """Lets time pass for a device's row."""
    async with device.cloud.runtime.database("registry").session() as session, session.begin():
        row = await session.get_one(DeviceRow, device.device_id)
        for name, value in fields.items():
            setattr(row, name, value)
        session.add(row)


async def test_enrolment_gives_an_identity(cloud: RunningCloud, registry: RegistryServiceStub) -> None:
    device = await provision(cloud, "one")
    answer = await device.enrol()
    assert set(answer) == {
        "account_id", "device_id", "region", "user_jwt", "account_public_key", "lease_expires", "leaf_urls",
        "device_url", "gateway_url", "viewer_key", "log_group",
    }  # fmt: skip
    assert answer["leaf_urls"] == [f"tls://127.0.0.1:{cloud.runtime.ports.leaf}"]
    assert answer["log_group"] == f"/aws/panorama/devices/{device.device_id}"
    claims = jwt.decode(answer["user_jwt"])
    assert claims["sub"] == device.key.public
    assert claims["nats"]["issuer_account"] == answer["account_public_key"]
    assert claims["nats"]["allowed_connection_types"] == ["LEAFNODE"]
    expires = datetime.fromisoformat(answer["lease_expires"])
    assert timedelta(days=6.9) < expires - datetime.now(UTC) <= timedelta(days=7)
    assert claims["exp"] == int(expires.timestamp())
    keys = await registry.GetDeviceKeys(pb.GetDeviceKeysRequest(device_id=device.device_id))
    assert keys.seal_public_key == SEAL_KEY
    found = await device.describe()
    assert found.device_aggregated_status == pb.DEVICE_AGGREGATED_STATUS_PENDING
    assert found.provisioning_status == pb.DEVICE_STATUS_PENDING
    assert found.serial_number == "1234567890" and found.current_software == "0.1.0"


async def test_a_bundle_works_once_even_for_many_at_the_same_time(cloud: RunningCloud) -> None:
    device = await provision(cloud, "one")
    requests = [device.request(nats_public_key=jwt.new_key(Kind.USER).public) for _ in range(6)]
    answers = await asyncio.gather(*(device.post("/enrol", request) for request in requests))
    assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409, 409]
    status, answer = await device.post("/enrol", device.request())
    assert (status, answer["error"]["code"]) == (409, "ALREADY_ENROLLED")


async def test_a_bundle_ends_after_five_minutes(cloud: RunningCloud) -> None:
    device = await provision(cloud, "one")
    left = datetime.fromisoformat(device.bundle["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=290) < left <= timedelta(seconds=300)
    await age(device, token_expires=datetime.now(UTC) - timedelta(seconds=1))
    status, answer = await device.post("/enrol", device.request())
    assert (status, answer["error"]["code"]) == (410, "TOKEN_EXPIRED")
    assert "provision it again" in answer["error"]["message"]


async def test_a_wrong_token_and_an_unknown_device_are_refused_alike(cloud: RunningCloud) -> None:
    device, other = await provision(cloud, "one"), await provision(cloud, "two")
    answers = [
        await device.post("/enrol", device.request(token=other.bundle["token"])),
        await device.post("/enrol", device.request(device_id="device-" + "a" * 26)),
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 403 and answers[0][1]["error"]["code"] == "TOKEN_INVALID"
    await device.enrol()


@pytest.mark.parametrize(
    "change",
    [
        {"nats_public_key": "UAAA"},
        {"nats_public_key": jwt.new_key(Kind.ACCOUNT).public},
        {"seal_public_key": base64.b64encode(b"short").decode()},
        {"seal_public_key": "?"},
        {"serial_number": "abc"},
        {"token": 7},
        {"device_id": ""},
    ],
)
async def test_a_wrong_request_is_refused_and_leaves_the_bundle_good(
    cloud: RunningCloud, change: dict[str, object]
) -> None:
    device = await provision(cloud, "one")
    status, answer = await device.post("/enrol", device.request(**change))
    assert (status, answer["error"]["code"]) == (400, "INVALID_REQUEST")
    assert next(iter(change)) in answer["error"]["message"]
    await device.enrol()


async def test_what_is_no_json_is_refused(cloud: RunningCloud) -> None:
    device = await provision(cloud, "one")
    for body in (b"{", b"\xff\xfe", b"[]", b""):
        status, answer = await device.post("/enrol", body)
        assert (status, answer["error"]["code"]) == (400, "INVALID_REQUEST")


async def test_the_device_port_speaks_tls_of_the_hubs_own_authority_only(cloud: RunningCloud) -> None:
    device = await provision(cloud, "one")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.post(device.bundle["enrol_url"], json={}, ssl=ssl.create_default_context())


async def test_blobs_come_whole_and_in_ranges_to_enrolled_devices_only(cloud: RunningCloud) -> None:
    data = bytes(range(256)) * 4096
    blob = await cloud.runtime.blobs.put_bytes(data)
    path = f"/blobs/{blob.digest}"
    device = await provision(cloud, "one")
    assert (await device.get(path))[0] == 401
    await device.enrol()
    status, headers, body = await device.get(path)
    assert (status, body) == (200, data) and headers["Accept-Ranges"] == "bytes"
    status, headers, body = await device.get(path, {"Range": "bytes=1000-"})
    assert (status, body) == (206, data[1000:])
    assert headers["Content-Range"] == f"bytes 1000-{len(data) - 1}/{len(data)}"
    status, _, body = await device.get(path, {"Range": f"bytes={len(data)}-"})
    assert status == 416 and json.loads(body)["error"]["code"] == "RANGE_INVALID"
    for missing in ("/blobs/sha256:" + "0" * 64, "/blobs/nonsense", "/blobs/..%2F..%2Fadmin.json"):
        assert (await device.get(missing))[0] == 404


async def test_a_wrong_signature_opens_nothing(cloud: RunningCloud, registry: RegistryServiceStub) -> None:
    blob = await cloud.runtime.blobs.put_bytes(b"secret")
    path = f"/blobs/{blob.digest}"
    device, other = await provision(cloud, "one"), await provision(cloud, "two")
    await device.enrol()
    await other.enrol()
    wrong = [
        "",
        "Bearer x",
        device.signature("GET", path, key=other.key),
        device.signature("POST", path),
        device.signature("GET", path + "x"),
        device.signature("GET", path, late_s=400),
        device.signature("GET", path, late_s=-400),
    ]
    for header in wrong:
        status, _, body = await device.get(path, {"Authorization": header})
        assert (status, json.loads(body)["error"]["code"]) == (401, "UNAUTHENTICATED"), header
    assert (await device.get(path))[0] == 200
    await registry.DeleteDevice(pb.DeleteDeviceRequest(device_id=device.device_id))
    status, _, body = await device.get(path)
    assert (status, json.loads(body)["error"]["code"]) == (410, "DEVICE_DELETED")
    # Who is not that device learns nothing of it.
    for header in (device.signature("GET", path, key=other.key), device.signature("GET", path, late_s=400)):
        assert (await device.get(path, {"Authorization": header}))[0] == 401


async def test_a_lease_is_renewed_over_the_link_and_taken_without_dropping_local_clients(
    cloud: RunningCloud, tmp_path: Path
) -> None:
    device = await provision(cloud, "one")
    await device.enrol()
    await age(device, lease_expires=datetime.now(UTC) + timedelta(hours=1))
    folder = tmp_path / "leaf"
    async with device.leaf(folder) as bus:
        answer = (await bus.request(subjects.up_lease(device.device_id), {})).json()
        expires = datetime.fromisoformat(answer["lease_expires"])
        assert expires - datetime.now(UTC) > timedelta(days=6.9)
        assert jwt.decode(answer["user_jwt"])["sub"] == device.key.public
        assert answer["gateway_url"] == device.identity["gateway_url"]
        lease = (await device.describe()).lease_expiration_time.ToDatetime(tzinfo=UTC)
        assert lease == expires
        second = folder / "device.2.creds"
        write_secret(second, jwt.creds_text(answer["user_jwt"], device.key).encode())
        await leaf.use_credentials(folder, second)
        heard = asyncio.Event()

        async def pong(_: object) -> None:
            heard.set()

        await cloud.runtime.bus.subscribe(subjects.up_heartbeat(device.device_id), pong)
        async with asyncio.timeout(30):
            while not heard.is_set():
                await device.beat(bus)
                await asyncio.sleep(0.05)
        assert bus.stats.connects == 1


async def test_an_appliance_that_was_off_for_longer_than_its_lease_comes_back_by_itself(
    cloud: RunningCloud, registry: RegistryServiceStub
) -> None:
    device = await provision(cloud, "one")
    await device.enrol()
    await age(device, provisioning="SUCCEEDED", lease_expires=datetime.now(UTC) - timedelta(days=30))
    assert (await device.describe()).device_aggregated_status == pb.DEVICE_AGGREGATED_STATUS_LEASE_EXPIRED
    status, answer = await device.post("/lease", b"", {"Authorization": device.signature("POST", "/lease")})
    assert status == 200 and jwt.decode(answer["user_jwt"])["exp"] > datetime.now(UTC).timestamp() + 3600
    assert (await device.describe()).device_aggregated_status == pb.DEVICE_AGGREGATED_STATUS_OFFLINE
    assert (await device.post("/lease", b""))[0] == 401
    await registry.DeleteDevice(pb.DeleteDeviceRequest(device_id=device.device_id))
    assert (await device.post("/lease", b"", {"Authorization": device.signature("POST", "/lease")}))[0] == 410


async def test_chunks_come_many_at_once_and_one_that_is_absent_is_said(cloud: RunningCloud) -> None:
    device = await provision(cloud, "chunks")
    await device.enrol()
    store = ChunkStore(cloud.runtime.blobs)
    contents = {hashlib.sha256(data).hexdigest(): data for data in (b"one" * 99, b"two")}
    for digest, data in contents.items():
        store.put(digest, data)
    wanted = [*contents, "0" * 64]
    headers = {"Authorization": device.signature("POST", "/chunks")}
    status, body = await device.post_raw("/chunks", pack_digests(wanted), headers)
    assert status == 200
    assert body == b"".join(pack(store.frame(digest)) for digest in wanted)
    assert body.endswith(b"\xff\xff\xff\xff")
    assert (await device.post_raw("/chunks", b"", headers))[0] == 400
    assert (await device.post_raw("/chunks", pack_digests(wanted), {}))[0] == 401
