"""Garbage in the blob store, over a real cloud: what goes, what stays, and what happens while a round goes on."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import delete

from belvedere.chassis.errors import BelvedereError
from belvedere.chassis.settings import SettingError
from belvedere.chunks import AssetRoot
from belvedere.chunks.store import ChunkStore
from belvedere.v1 import deployments_pb2, deployments_pb2_grpc, packages_pb2, packages_pb2_grpc, storage_pb2
from belvedere.v1.logs_metrics_pb2 import ListMetricsRequest
from belvedere.v1.logs_metrics_pb2_grpc import MetricsServiceStub
from belvedere.v1.storage_pb2_grpc import StorageServiceStub
from services.packages.chunking import Chunker
from services.packages.collecting import Collector, Round
from services.packages.figures import NAMESPACE, Figures
from services.packages.naming import Look, Names
from services.packages.store import VersionRow
from tests.support import graphs
from tests.support.archives import tar_gz
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.fleet import Device, eventually
from tests.support.models import tiny_tensorflow_bytes
from tests.support.registering import Uploader

SERVICES = ["identity", "registry", "packages", "deployments", "logs_metrics"]
DAY = timedelta(days=1)
LIBRARY = random.Random(3).randbytes(700_000)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, SERVICES) as running:
        with running.caller():
            yield running


class LookThen(Look):
    """A look after which something happens before anything is taken away."""

    def __init__(self, *arguments: Any, then: Callable[[], Awaitable[None]]) -> None:
        super().__init__(*arguments)
        self.then = then

    async def into(self, names: Names) -> None:
        await super().into(names)
        await self.then()


async def _nothing() -> None: ...


async def collect(cloud: RunningCloud, then: Callable[[], Awaitable[None]] = _nothing) -> Round:
    runtime = cloud.runtime
    look = LookThen(runtime.database("packages"), runtime.blobs, runtime.channel, then=then)
    figures = Figures(runtime.channel, "123456789012", "us-east-1")
    collector = Collector(runtime.database("packages"), runtime.blobs, look, figures, runtime.clock, 3600.0, DAY)
    return await collector.collect()


def a_day_later(cloud: RunningCloud) -> None:
    """Everything that is stored was last touched two days ago."""
    for path in cloud.runtime.paths.blobs.rglob("*"):
        os.utime(path, (time.time() - 2 * DAY.total_seconds(),) * 2)


def code(name: str) -> bytes:
    return tar_gz({"panorama/app.py": f"print({name!r})\n".encode() * 50, "usr/lib/library.so": LIBRARY})


def package(name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(json.dumps(graphs.code_package()).replace("people_counter_code", name))
    return document


async def root_of(cloud: RunningCloud, name: str) -> str:
    """The digest of the code asset of a registered package, by its name."""
    stub = packages_pb2_grpc.PackagesServiceStub(cloud.channel)
    reference = packages_pb2.PackageReference(owner="123456789012", name=name, version="1.0")
    (found,) = (await stub.ResolvePackages(packages_pb2.ResolvePackagesRequest(references=[reference]))).packages
    (asset,) = (asset for asset in found.assets if asset.descriptor_document)
    return asset.digest


async def chunks_of(cloud: RunningCloud, root: str) -> set[str]:
    return set(ChunkStore(cloud.runtime.blobs).named_by(AssetRoot.from_json(await cloud.runtime.blobs.read(root))))


def frames(cloud: RunningCloud, digests: set[str]) -> list[bool]:
    store = ChunkStore(cloud.runtime.blobs)
    return [store.frame(digest) is not None for digest in sorted(digests)]


async def delete_package(cloud: RunningCloud, name: str) -> None:
    stub = packages_pb2_grpc.PackagesServiceStub(cloud.channel)
    await stub.DeletePackage(packages_pb2.DeletePackageRequest(package_id=f"packageName/{name}", force_delete=True))


@pytest.mark.both_databases
async def test_what_a_deleted_package_left_goes_after_a_day_and_what_another_shares_stays(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    for name in ("kept", "gone"):
        await uploader.register(package(name), code(name))
    kept_root, gone_root = await root_of(cloud, "kept"), await root_of(cloud, "gone")
    kept, gone = await chunks_of(cloud, kept_root), await chunks_of(cloud, gone_root)
    assert kept & gone and gone - kept
    a_day_later(cloud)
    await delete_package(cloud, "gone")
    archive = f"sha256:{hashlib.sha256(code('gone')).hexdigest()}"

    first = await collect(cloud)  # the uploaded files; chunks have the grace from the deletion on
    assert first.whole and not await cloud.runtime.blobs.exists(archive)
    assert all(frames(cloud, gone)) and first.unnamed.objects >= len(gone - kept)
    a_day_later(cloud)
    freed = (await collect(cloud)).freed
    assert freed.objects == len(gone - kept) + 1 and freed.size_bytes > 0
    assert not await cloud.runtime.blobs.exists(gone_root) and not any(frames(cloud, gone - kept))
    assert await Chunker(cloud.runtime.blobs).renew(kept_root) and all(frames(cloud, kept))
    a_day_later(cloud)
    assert (await collect(cloud)).freed.objects == 0

    await uploader.register(package("gone"), code("gone"))
    assert await root_of(cloud, "gone") == gone_root and all(frames(cloud, gone))


async def test_the_bytes_of_a_deleted_object_go_and_those_of_one_that_is_being_stored_stay(cloud: RunningCloud) -> None:
    uploader, blobs, storage = Uploader(cloud), cloud.runtime.blobs, StorageServiceStub(cloud.channel)
    for key, data in (("one", b"same"), ("two", b"same"), ("three", b"other"), ("four", b"again")):
        await uploader.put(key, data)
    forgotten = (await blobs.put_bytes(b"a part of an upload whose client died")).digest
    a_day_later(cloud)
    digests = {data: f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (b"same", b"other", b"again")}
    await storage.DeleteObjects(storage_pb2.DeleteObjectsRequest(bucket=uploader.bucket, keys=["one", "three", "four"]))
    fresh = (await blobs.put_bytes(b"its name comes later")).digest

    async def stored_again() -> None:
        await uploader.put("five", b"again")

    done = await collect(cloud, stored_again)
    assert done.freed.objects == 2 and not await blobs.exists(forgotten) and not await blobs.exists(digests[b"other"])
    assert [await blobs.exists(digest) for digest in (fresh, digests[b"same"], digests[b"again"])] == [True] * 3


async def test_a_registration_that_goes_on_meanwhile_finds_everything(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    await uploader.register(package("first"), code("app"))
    root = await root_of(cloud, "first")
    chunks = await chunks_of(cloud, root)
    await delete_package(cloud, "first")
    a_day_later(cloud)  # all of it is garbage now

    async def registered() -> None:
        await uploader.register(package("second"), code("app"))

    await collect(cloud, registered)
    assert await root_of(cloud, "second") == root
    assert await cloud.runtime.blobs.exists(root) and all(frames(cloud, chunks))


@pytest.mark.both_databases
async def test_what_a_live_application_names_stays_until_it_is_gone(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    await uploader.register(graphs.code_package(), code("app"))
    await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
    await uploader.camera("north", "rtsp://10.0.0.1/n")
    root = await root_of(cloud, graphs.code_package()["nodePackage"]["name"])
    chunks = await chunks_of(cloud, root)
    device = await Device.provision(cloud, "yard")
    stub = deployments_pb2_grpc.DeploymentsServiceStub(cloud.channel)
    made = await stub.CreateApplicationInstance(
        deployments_pb2.CreateApplicationInstanceRequest(
            name="counter",
            default_runtime_context_device=device.device_id,
            manifest_payload=deployments_pb2.ManifestPayload(payload_data=json.dumps(graphs.manifest())),
            manifest_overrides_payload=deployments_pb2.ManifestOverridesPayload(
                payload_data=json.dumps(graphs.overrides("north"))
            ),
        )
    )
    async with cloud.runtime.database("packages").session() as session, session.begin():
        await session.exec(delete(VersionRow))
    graphs_named = (await stub.ListDeployedAssets(deployments_pb2.ListDeployedAssetsRequest())).graph_digests
    a_day_later(cloud)
    await collect(cloud)
    assert await Chunker(cloud.runtime.blobs).renew(root)
    assert [await cloud.runtime.blobs.exists(digest) for digest in graphs_named] == [True]

    await stub.RemoveApplicationInstance(
        deployments_pb2.RemoveApplicationInstanceRequest(application_instance_id=made.application_instance_id)
    )
    a_day_later(cloud)
    await collect(cloud)
    assert not any(frames(cloud, chunks)) and not await cloud.runtime.blobs.exists(graphs_named[0])


async def test_rounds_are_made_by_themselves_and_tell_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_PACKAGES_GARBAGE_EVERY_S", "0.2")
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            digest = (await cloud.runtime.blobs.put_bytes(b"garbage")).digest
            a_day_later(cloud)

            async def gone() -> bool:
                return not await cloud.runtime.blobs.exists(digest)

            await eventually(gone, "the end of garbage")

            async def told() -> bool:
                found = await MetricsServiceStub(cloud.channel).ListMetrics(ListMetricsRequest(namespace=NAMESPACE))
                return {metric.name for metric in found.metrics} == {
                    f"{name}{kind}" for name in ("Freed", "Stored", "Unnamed") for kind in ("Bytes", "Objects")
                }

            await eventually(told, "the figures")


async def test_nothing_goes_while_the_deployments_service_can_not_be_asked(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, ["packages"]) as cloud:
        digest = (await cloud.runtime.blobs.put_bytes(b"garbage?")).digest
        a_day_later(cloud)
        with pytest.raises(BelvedereError):
            await collect(cloud)
        assert await cloud.runtime.blobs.exists(digest)


async def test_a_grace_in_which_nothing_can_be_registered_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_PACKAGES_GARBAGE_GRACE_S", "60")
    with pytest.raises(SettingError, match="at least 43200"):
        async with running_cloud(tmp_path, ["packages"]):
            pass
