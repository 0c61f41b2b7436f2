"""Uploads that nobody completed, over a real cloud: what is forgotten, and what is not touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from belvedere.v1 import storage_pb2, storage_pb2_grpc
from services.packages.sweeping import UploadSweeper
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.registering import Uploader

UPLOAD, OTHER = "a" * 64, "b" * 64
UPLOADS = ".belvedere/uploads/"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, ["packages"]) as running:
        with running.caller():
            yield running


def sweeper(cloud: RunningCloud, lifetime_s: float) -> UploadSweeper:
    runtime = cloud.runtime
    return UploadSweeper(runtime.database("packages"), runtime.blobs, runtime.clock, lifetime_s)


async def put(cloud: RunningCloud, key: str, data: bytes, age: timedelta, bucket: str = Uploader.bucket) -> str:
    blob = await cloud.runtime.blobs.put_bytes(data)
    stored = storage_pb2.StoredObject(bucket=bucket, key=key, digest=blob.digest, size_bytes=len(data))
    stored.last_modified.FromDatetime(cloud.runtime.clock() - age)
    stub = storage_pb2_grpc.StorageServiceStub(cloud.channel)
    await stub.PutObject(storage_pb2.PutObjectRequest(object=stored))
    return str(blob.digest)


async def keys(cloud: RunningCloud) -> list[str]:
    stub = storage_pb2_grpc.StorageServiceStub(cloud.channel)
    listed = await stub.ListObjects(storage_pb2.ListObjectsRequest(bucket=Uploader.bucket))
    return [entry.key for entry in listed.objects]


async def test_an_abandoned_upload_goes_with_its_parts_and_nothing_else_does(cloud: RunningCloud) -> None:
    old, new = timedelta(hours=3), timedelta(seconds=1)
    empty = await put(cloud, f"{UPLOADS}{UPLOAD}", b"", old)
    part = await put(cloud, f"{UPLOADS}{UPLOAD}/00001", b"part", old)
    await put(cloud, f"{UPLOADS}{OTHER}", b"", old)
    fresh = await put(cloud, f"{UPLOADS}{OTHER}/00001", b"fresh", new)
    kept = await put(cloud, "object", b"object", old)
    assert await sweeper(cloud, 3600).sweep() == 1
    assert await keys(cloud) == [f"{UPLOADS}{OTHER}", f"{UPLOADS}{OTHER}/00001", "object"]
    blobs = cloud.runtime.blobs
    assert not await blobs.exists(part)
    assert [await blobs.exists(digest) for digest in (empty, fresh, kept)] == [True, True, True]
    assert await sweeper(cloud, 3600).sweep() == 0


async def test_a_part_that_outlived_its_upload_goes_too(cloud: RunningCloud) -> None:
    part = await put(cloud, f"{UPLOADS}{UPLOAD}/00007", b"late", timedelta(hours=3))
    assert await sweeper(cloud, 3600).sweep() == 1
    assert not await cloud.runtime.blobs.exists(part) and not await keys(cloud)


async def test_a_bucket_takes_the_parts_in_it_along(cloud: RunningCloud) -> None:
    stub = storage_pb2_grpc.StorageServiceStub(cloud.channel)
    await stub.CreateBucket(storage_pb2.CreateBucketRequest(name="pictures"))
    await put(cloud, f"{UPLOADS}{UPLOAD}", b"", timedelta(0), "pictures")
    part = await put(cloud, f"{UPLOADS}{UPLOAD}/00001", b"part", timedelta(0), "pictures")
    await stub.DeleteBucket(storage_pb2.DeleteBucketRequest(name="pictures"))
    assert not await cloud.runtime.blobs.exists(part)
