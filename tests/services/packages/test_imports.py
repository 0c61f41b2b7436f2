"""Import jobs over real gRPC, SQLite and blobs: archives as people pack them, and broken ones."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chunks import AssetRoot, Kind
from belvedere.v1 import common_pb2, packages_pb2_grpc, storage_pb2, storage_pb2_grpc
from belvedere.v1 import packages_pb2 as pb
from tests.support import graphs
from tests.support.archives import tar_gz
from tests.support.cloud import ACCOUNT, RunningCloud, running_cloud
from tests.support.registering import Uploader
from tests.support.waiting import LOOK_EVERY_S

SERVICES = ["packages", "deployments"]
FOLDER = f"packages/{ACCOUNT}-people_counter_code-1.0"
FILESYSTEM = tar_gz({"panorama/app.py": b"code"})
ASSET, DESCRIPTOR = "a" * 64 + ".tar.gz", "b" * 64 + ".json"
WAIT_S = 40.0


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, SERVICES) as running:
        with running.caller():
            yield running


def packages(cloud: RunningCloud) -> packages_pb2_grpc.PackagesServiceAsyncStub:
    return packages_pb2_grpc.PackagesServiceStub(cloud.channel)


def document() -> bytes:
    return json.dumps(graphs.code_package(), indent=4).encode()


def project() -> dict[str, bytes]:
    """An application project of one package, as the AWS tools leave it."""
    return {
        f"{FOLDER}/package.json": document(),
        f"{FOLDER}/descriptor.json": b"{}",
        f"assets/{ASSET}": FILESYSTEM,
        f"assets/{DESCRIPTOR}": json.dumps(graphs.RUNTIME_DESCRIPTOR).encode(),
        "graphs/app/graph.json": b"{}",
    }


def tar(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def claiming() -> bytes:
    """A small tar.gz with a header that unpacks to a gigabyte."""
    header = tarfile.TarInfo("pax")
    header.size, header.type = 1 << 30, tarfile.XHDTYPE
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.PAX_FORMAT))
        for _ in range(64):
            file.write(bytes(1 << 20))
    return packed.getvalue()


def many() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(10_001):
            folder = tarfile.TarInfo(str(number))
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
    return packed.getvalue()


def asked(token: str = "once", key: str = "in/archive", **changed: Any) -> pb.CreatePackageImportJobRequest:
    return pb.CreatePackageImportJobRequest(
        client_token=token,
        job_type=changed.get("job_type", pb.PACKAGE_IMPORT_JOB_TYPE_NODE_PACKAGE_VERSION),
        job_tags=[common_pb2.JobResourceTags(resource_type=common_pb2.JOB_RESOURCE_TYPE_PACKAGE, tags={"k": "v"})],
        input_config=pb.PackageImportJobInputConfig(
            package_version_input_config=pb.PackageVersionInputConfig(
                s3_location=pb.S3Location(bucket_name=Uploader.bucket, object_key=key, region=changed.get("region"))
            )
        ),
        output_config=pb.PackageImportJobOutputConfig(
            package_version_output_config=pb.PackageVersionOutputConfig(
                package_name=changed.get("name", "people_counter_code"),
                package_version=changed.get("version", "1.0"),
                mark_latest=changed.get("mark_latest"),
            )
        ),
    )


async def done(cloud: RunningCloud, job_id: str) -> pb.DescribePackageImportJobResponse:
    async with asyncio.timeout(WAIT_S):
        while True:
            request = pb.DescribePackageImportJobRequest(job_id=job_id)
            job = await packages(cloud).DescribePackageImportJob(request)
            if job.status != pb.PACKAGE_IMPORT_JOB_STATUS_PENDING:
                return job
            await asyncio.sleep(LOOK_EVERY_S)


async def imported(cloud: RunningCloud, archive: bytes, **changed: Any) -> pb.DescribePackageImportJobResponse:
    await Uploader(cloud).put("in/archive", archive)
    request = asked(hashlib.sha256(archive + repr(changed).encode()).hexdigest(), **changed)
    return await done(cloud, (await packages(cloud).CreatePackageImportJob(request)).job_id)


async def test_a_project_is_imported_and_its_version_can_be_deployed(cloud: RunningCloud) -> None:
    job = await imported(cloud, tar(project()))
    patch = hashlib.sha256(document()).hexdigest()
    assert (job.status, job.output.patch_version) == (pb.PACKAGE_IMPORT_JOB_STATUS_SUCCEEDED, patch), job.status_message
    where = job.output.output_s3_location
    assert (where.bucket_name, where.object_key) == (
        Uploader.bucket,
        f"{ACCOUNT}/nodePackages/people_counter_code/manifests/1.0/{patch}.json",
    )
    package = await packages(cloud).DescribePackage(pb.DescribePackageRequest(package_id=job.output.package_id))
    assert (package.package_name, dict(package.tags)) == ("people_counter_code", {"k": "v"})
    version = await Uploader(cloud).describe("people_counter_code", patch)
    assert (version.status, version.is_latest_patch) == (pb.PACKAGE_VERSION_STATUS_REGISTER_COMPLETED, True)
    reference = pb.PackageReference(owner=ACCOUNT, name="people_counter_code", version="1.0")
    found = await packages(cloud).ResolvePackages(pb.ResolvePackagesRequest(references=[reference]))
    root = AssetRoot.from_json(await cloud.runtime.blobs.read(found.packages[0].assets[0].digest))
    assert (root.kind, root.size_bytes) == (Kind.TREE, len(b"code"))
    (listed,) = (await packages(cloud).ListPackageImportJobs(pb.ListPackageImportJobsRequest())).package_import_jobs
    assert (listed.job_id, listed.status) == (job.job_id, job.status)


@pytest.mark.parametrize(
    ("pack", "files"),
    [
        (zipped, project()),
        (lambda files: tar(files, "w"), project()),
        (lambda files: tar(files, "w:xz"), project()),
        (lambda files: tar(files, "w:bz2"), project()),
        (tar, {f"./{path.rpartition('/')[2]}": data for path, data in project().items()}),
        (tar, {f"app/{path}": data for path, data in project().items()}),
        (tar, project() | {f"packages/{ACCOUNT}-other-1.0/package.json": b"{}"}),
    ],
    ids=["zip", "plain tar", "xz", "bzip2", "flat", "in a folder", "of several packages"],
)
async def test_archives_are_taken_as_people_pack_them(cloud: RunningCloud, pack: Any, files: dict[str, bytes]) -> None:
    job = await imported(cloud, pack(files))
    assert job.status == pb.PACKAGE_IMPORT_JOB_STATUS_SUCCEEDED, job.status_message


@pytest.mark.parametrize(
    ("archive", "changed", "said"),
    [
        (b"nonsense", {}, "no tar or zip archive"),
        (b"", {}, "no tar or zip archive"),
        (tar(project())[:-40], {}, "no tar or zip archive"),
        (zipped(project())[:-40], {}, "no tar or zip archive"),
        (claiming(), {}, "claims 1073741824 bytes"),
        (many(), {}, "more than 10000 entries"),
        (tar({"a": b"b"}), {}, "holds no package.json"),
        (tar({"x/package.json": b"{}", "y/package.json": b"{}"}), {}, "2 files package.json"),
        (tar({"package.json": b"nonsense"}), {}, "is not JSON"),
        (tar({"package.json": document()}), {}, "is not stored among the binaries"),
        (tar(project() | {f"assets/{DESCRIPTOR}": b"{}"}), {}, "descriptorUri"),
        (tar(project()), {"version": "2.0"}, "the document says 1.0"),
        (tar({"package.json": b"x" * 2_000_000}), {}, "at most 1048576"),
    ],
    ids=[
        "nonsense",
        "nothing",
        "half a tar",
        "half a zip",
        "a bomb",
        "too many entries",
        "no package",
        "two packages",
        "no JSON",
        "an absent binary",
        "no descriptor",
        "another version",
        "too large a document",
    ],
)
async def test_an_import_that_fails_says_why_and_leaves_nothing(
    cloud: RunningCloud, archive: bytes, changed: dict[str, Any], said: str
) -> None:
    job = await imported(cloud, archive, **changed)
    assert job.status == pb.PACKAGE_IMPORT_JOB_STATUS_FAILED
    assert said in job.status_message
    assert not job.output.patch_version
    assert not (await packages(cloud).ListPackages(pb.ListPackagesRequest())).packages
    objects = await storage_pb2_grpc.StorageServiceStub(cloud.channel).ListObjects(
        storage_pb2.ListObjectsRequest(bucket=Uploader.bucket)
    )
    assert [item.key for item in objects.objects] == ["in/archive"]


async def test_an_archive_that_is_not_there_fails_the_job(cloud: RunningCloud) -> None:
    made = await packages(cloud).CreatePackageImportJob(asked(key="in/none"))
    job = await done(cloud, made.job_id)
    assert f"nothing is stored at s3://{Uploader.bucket}/in/none" in job.status_message


async def test_a_client_token_names_one_job(cloud: RunningCloud) -> None:
    await Uploader(cloud).put("in/archive", tar(project()))
    first = await packages(cloud).CreatePackageImportJob(asked())
    assert (await packages(cloud).CreatePackageImportJob(asked())).job_id == first.job_id
    await done(cloud, first.job_id)
    assert (await packages(cloud).CreatePackageImportJob(asked())).job_id == first.job_id
    with pytest.raises(Conflict, match="was used with another request") as caught:
        await packages(cloud).CreatePackageImportJob(asked(mark_latest=True))
    assert caught.value.resource_id == first.job_id
    with cloud.caller(account="999999999999"):
        other = await packages(cloud).CreatePackageImportJob(asked())
        assert other.job_id != first.job_id
        with pytest.raises(NotFound):
            await packages(cloud).DescribePackageImportJob(pb.DescribePackageImportJobRequest(job_id=first.job_id))


async def test_another_patch_becomes_the_latest_only_when_asked(cloud: RunningCloud) -> None:
    first = await imported(cloud, tar(project()))
    changed = graphs.code_package()
    changed["nodePackage"]["description"] = "second"
    again = project() | {f"{FOLDER}/package.json": json.dumps(changed).encode()}
    second = await imported(cloud, tar(again))
    name = pb.DescribePackageVersionRequest(package_id="packageName/people_counter_code", package_version="1.0")
    assert (await packages(cloud).DescribePackageVersion(name)).patch_version == first.output.patch_version
    await imported(cloud, tar(again), mark_latest=True)
    assert (await packages(cloud).DescribePackageVersion(name)).patch_version == second.output.patch_version


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"job_type": pb.PACKAGE_IMPORT_JOB_TYPE_MARKETPLACE_NODE_PACKAGE_VERSION}, "JobType"),
        ({"region": "eu-west-1"}, "InputConfig.PackageVersionInputConfig.S3Location.Region"),
        ({"name": "no blanks"}, "PackageName"),
    ],
)
async def test_what_can_not_be_imported_is_refused_at_once(
    cloud: RunningCloud, changed: dict[str, Any], place: str
) -> None:
    with pytest.raises(Invalid) as caught:
        await packages(cloud).CreatePackageImportJob(asked(**changed))
    assert [path for path, _ in caught.value.fields] == [place]
    assert not (await packages(cloud).ListPackageImportJobs(pb.ListPackageImportJobsRequest())).package_import_jobs


async def test_a_job_that_a_stop_interrupted_is_done_after_the_restart(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            await Uploader(cloud).put("in/archive", tar(project()))
            made = await packages(cloud).CreatePackageImportJob(asked())
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            assert (await done(cloud, made.job_id)).status == pb.PACKAGE_IMPORT_JOB_STATUS_SUCCEEDED


async def test_jobs_come_in_pages_the_newest_first(cloud: RunningCloud) -> None:
    made = [(await packages(cloud).CreatePackageImportJob(asked(f"t{number}"))).job_id for number in range(3)]
    first = await packages(cloud).ListPackageImportJobs(pb.ListPackageImportJobsRequest(max_results=2))
    second = await packages(cloud).ListPackageImportJobs(
        pb.ListPackageImportJobsRequest(max_results=2, next_token=first.next_token)
    )
    listed = [job.job_id for page in (first, second) for job in page.package_import_jobs]
    assert sorted(listed) == sorted(made) and not second.HasField("next_token")
