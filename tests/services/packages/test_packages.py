"""Packages over real gRPC, SQLite and blobs: register, look up, refuse, withdraw; cameras; the index over objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from belvedere.bus import subjects
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chassis.secret import Secret
from belvedere.chunks import AssetRoot, Kind
from belvedere.fleet import sealing
from belvedere.v1 import packages_pb2 as pb
from belvedere.v1 import packages_pb2_grpc, storage_pb2, storage_pb2_grpc
from tests.support import graphs
from tests.support.archives import tar_gz
from tests.support.cloud import ACCOUNT, RunningCloud, running_cloud
from tests.support.registering import Uploader

SERVICES = ["packages", "deployments"]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, SERVICES) as running:
        with running.caller():
            yield running


def packages(cloud: RunningCloud) -> packages_pb2_grpc.PackagesServiceAsyncStub:
    return packages_pb2_grpc.PackagesServiceStub(cloud.channel)


def storage(cloud: RunningCloud) -> storage_pb2_grpc.StorageServiceAsyncStub:
    return storage_pb2_grpc.StorageServiceStub(cloud.channel)


async def events(cloud: RunningCloud, count: int) -> list[Event]:
    found: list[Event] = []
    async for message in consume(
        cloud.runtime.bus, subjects.EVENTS_STREAM, filter_subject=subjects.events("packages"), ack=False
    ):
        found.append(Event.from_json(message.data))
        if len(found) == count:
            break
    return found


async def test_a_package_is_made_once_and_found_by_id_and_by_name(cloud: RunningCloud) -> None:
    made = await packages(cloud).CreatePackage(pb.CreatePackageRequest(package_name="code", tags={"a": "b"}))
    assert made.package_id.startswith("package-")
    for reference in (made.package_id, "packageName/code"):
        found = await packages(cloud).DescribePackage(pb.DescribePackageRequest(package_id=reference))
        assert found.package_name == "code"
        assert found.arn == f"arn:aws:panorama:us-east-1:123456789012:package/{made.package_id}"
        assert dict(found.tags) == {"a": "b"}
    location = made.storage_location
    assert location.bucket == "panorama-123456789012-us-east-1"
    assert location.binary_prefix_location == "123456789012/nodePackages/code/binaries"
    assert location.manifest_prefix_location == "123456789012/nodePackages/code/manifests"
    with pytest.raises(Conflict):
        await packages(cloud).CreatePackage(pb.CreatePackageRequest(package_name="code"))
    with pytest.raises(Invalid):
        await packages(cloud).CreatePackage(pb.CreatePackageRequest(package_name="no blanks"))


async def test_another_account_sees_nothing(cloud: RunningCloud) -> None:
    made = await packages(cloud).CreatePackage(pb.CreatePackageRequest(package_name="code"))
    with cloud.caller(account="999999999999"):
        for reference in (made.package_id, "packageName/code"):
            with pytest.raises(NotFound):
                await packages(cloud).DescribePackage(pb.DescribePackageRequest(package_id=reference))
        assert not (await packages(cloud).ListPackages(pb.ListPackagesRequest())).packages
        with pytest.raises(NotFound):
            await storage(cloud).ListObjects(
                storage_pb2.ListObjectsRequest(bucket="panorama-123456789012-us-east-1", prefix="")
            )


async def test_packages_come_in_pages(cloud: RunningCloud) -> None:
    for name in "dbca":
        await packages(cloud).CreatePackage(pb.CreatePackageRequest(package_name=name))
    first = await packages(cloud).ListPackages(pb.ListPackagesRequest(max_results=3))
    assert [item.package_name for item in first.packages] == ["a", "b", "c"]
    second = await packages(cloud).ListPackages(pb.ListPackagesRequest(max_results=3, next_token=first.next_token))
    assert [item.package_name for item in second.packages] == ["d"]
    assert not second.HasField("next_token")
    with pytest.raises(Invalid):
        await packages(cloud).ListPackages(pb.ListPackagesRequest(next_token="x"))


async def test_tags_are_set_and_removed(cloud: RunningCloud) -> None:
    made = await packages(cloud).CreatePackage(pb.CreatePackageRequest(package_name="code", tags={"a": "1"}))
    await packages(cloud).TagPackage(pb.TagPackageRequest(package_id=made.package_id, tags={"b": "2"}))
    await packages(cloud).UntagPackage(pb.UntagPackageRequest(package_id=made.package_id, tag_keys=["a"]))
    found = await packages(cloud).DescribePackage(pb.DescribePackageRequest(package_id=made.package_id))
    assert dict(found.tags) == {"b": "2"}


async def test_a_registered_version_offers_its_nodes(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    patch = await uploader.register(graphs.code_package(), b"code")
    version = await packages(cloud).DescribePackageVersion(
        pb.DescribePackageVersionRequest(package_id="packageName/people_counter_code", package_version="1.0")
    )
    assert version.status == pb.PACKAGE_VERSION_STATUS_REGISTER_COMPLETED, version.status_description
    assert (version.patch_version, version.is_latest_patch) == (patch, True)
    (node,) = (await packages(cloud).ListNodes(pb.ListNodesRequest(category=pb.NODE_CATEGORY_BUSINESS_LOGIC))).nodes
    assert node.node_id == f"people_counter_code-1.0-{patch[:8]}-code_interface"
    found = await packages(cloud).DescribeNode(pb.DescribeNodeRequest(node_id=node.node_id))
    ports = {port.name: port for port in found.node_interface.inputs}
    assert ports["threshold"].type == pb.PORT_TYPE_FLOAT32
    assert ports["threshold"].default_value == "0.25"
    assert not ports["video_in"].HasField("default_value")
    assert not (await packages(cloud).ListNodes(pb.ListNodesRequest(category=pb.NODE_CATEGORY_ML_MODEL))).nodes
    assert [event.type for event in await events(cloud, 2)] == [
        "packages.package.created",
        "packages.version.registered",
    ]


async def test_the_nodes_that_every_appliance_has_are_described_and_listed_by_their_owner(cloud: RunningCloud) -> None:
    asked = pb.ListNodesRequest(owner_account="panorama", max_results=1)
    first = await packages(cloud).ListNodes(asked)
    asked.next_token = first.next_token
    second = await packages(cloud).ListNodes(asked)
    assert [(node.name, node.category) for node in (*first.nodes, *second.nodes)] == [
        ("rtsp_v1_interface", pb.NODE_CATEGORY_MEDIA_SOURCE),
        ("hdmi0", pb.NODE_CATEGORY_MEDIA_SINK),
    ]
    assert not second.next_token
    node = second.nodes[0]
    assert (node.owner_account, node.package_name, node.package_version) == ("panorama", "hdmi_data_sink", "1.0")
    for owner in (None, "panorama"):
        found = await packages(cloud).DescribeNode(pb.DescribeNodeRequest(node_id=node.node_id, owner_account=owner))
        assert [(port.name, port.type) for port in found.node_interface.inputs] == [("video_in", pb.PORT_TYPE_MEDIA)]
    with pytest.raises(NotFound):
        await packages(cloud).DescribeNode(pb.DescribeNodeRequest(node_id=node.node_id, owner_account=ACCOUNT))
    sinks = pb.ListNodesRequest(owner_account="panorama", category=pb.NODE_CATEGORY_ML_MODEL)
    assert not (await packages(cloud).ListNodes(sinks)).nodes
    assert not (await packages(cloud).ListNodes(pb.ListNodesRequest())).nodes


async def test_a_package_of_another_owner_is_not_there_and_takes_no_versions(cloud: RunningCloud) -> None:
    patch = await Uploader(cloud).register(graphs.code_package(), b"code")
    version: dict[str, Any] = {
        "package_id": "packageName/people_counter_code", "package_version": "1.0", "owner_account": "999999999999"
    }  # fmt: skip
    with pytest.raises(NotFound):
        await packages(cloud).DescribePackageVersion(pb.DescribePackageVersionRequest(**version))
    with pytest.raises(NotFound):
        await packages(cloud).DeregisterPackageVersion(
            pb.DeregisterPackageVersionRequest(**version, patch_version=patch)
        )
    with pytest.raises(Invalid, match="OwnerAccount"):
        await packages(cloud).RegisterPackageVersion(pb.RegisterPackageVersionRequest(**version, patch_version=patch))
    mine = pb.DescribePackageVersionRequest(**{**version, "owner_account": ACCOUNT})
    assert (await packages(cloud).DescribePackageVersion(mine)).patch_version == patch


async def test_a_version_is_resolved_with_digests_and_descriptors(cloud: RunningCloud) -> None:
    patch = await Uploader(cloud).register(graphs.code_package(), b"code bytes")
    reference = pb.PackageReference(owner="123456789012", name="people_counter_code", version="1.0")
    missing = pb.PackageReference(owner="123456789012", name="people_counter_code", version="2.0")
    foreign = pb.PackageReference(owner="999999999999", name="people_counter_code", version="1.0")
    answer = await packages(cloud).ResolvePackages(pb.ResolvePackagesRequest(references=[reference, missing, foreign]))
    (found,) = answer.packages
    assert found.patch_version == patch
    root = AssetRoot.from_json(await cloud.runtime.blobs.read(found.assets[0].digest))
    assert (root.kind, root.size_bytes) == (Kind.TREE, len(b"code bytes"))
    assert found.assets[0].size_bytes > 0
    assert "runtimeDescriptor" in json.loads(found.assets[0].descriptor_document)
    assert list(answer.missing) == [missing, foreign]


async def test_a_version_that_lacks_something_fails_and_says_what(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    package = graphs.code_package()
    await uploader.package("people_counter_code")
    patch = await uploader.manifest(package)
    await uploader.register_only("people_counter_code", patch)
    version = await uploader.describe("people_counter_code", patch)
    assert version.status == pb.PACKAGE_VERSION_STATUS_FAILED
    assert "assets[0].implementations[0].assetUri" in version.status_description
    assert (await events(cloud, 2))[1].type == "packages.version.failed"
    # Put right, the same patch can be registered.
    await uploader.assets(package, b"code")
    await uploader.register_only("people_counter_code", patch)
    assert (await uploader.describe("people_counter_code", patch)).status == (
        pb.PACKAGE_VERSION_STATUS_REGISTER_COMPLETED
    )


async def test_a_broken_document_fails_with_its_problems(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    await uploader.package("broken")
    for text, problem in [
        ("nonsense", "is not JSON"),
        ("{}", 'has no "nodePackage"'),
        ('{"nodePackage": {"envelopeVersion": "2021-01-01"}}', "interfaces: is missing"),
    ]:
        patch = hashlib.sha256(text.encode()).hexdigest()
        await uploader.put(f"123456789012/nodePackages/broken/manifests/1.0/{patch}.json", text.encode())
        await uploader.register_only("broken", patch)
        version = await uploader.describe("broken", patch)
        assert version.status == pb.PACKAGE_VERSION_STATUS_FAILED
        assert problem in version.status_description
    await uploader.register_only("broken", "f" * 64)
    assert "nothing is stored at" in (await uploader.describe("broken", "f" * 64)).status_description


async def test_a_model_needs_a_models_descriptor(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    patch = await uploader.register(graphs.model_package(), b"model", descriptor=graphs.RUNTIME_DESCRIPTOR)
    version = await uploader.describe("person_detector", patch)
    assert version.status == pb.PACKAGE_VERSION_STATUS_FAILED
    assert "not the kind of descriptor that a model has" in version.status_description


async def test_the_latest_patch_follows_registration_and_withdrawal(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    first = await uploader.register(graphs.code_package(), b"one")
    changed = graphs.code_package()
    changed["nodePackage"]["description"] = "second"
    second = await uploader.register(changed, b"two", latest=False)
    name = "packageName/people_counter_code"

    async def latest() -> str:
        request = pb.DescribePackageVersionRequest(package_id=name, package_version="1.0")
        return (await packages(cloud).DescribePackageVersion(request)).patch_version

    assert await latest() == first
    await uploader.register_only("people_counter_code", second, latest=True)
    assert await latest() == second
    assert [node.patch_version for node in (await packages(cloud).ListNodes(pb.ListNodesRequest())).nodes] == [second]
    await packages(cloud).DeregisterPackageVersion(
        pb.DeregisterPackageVersionRequest(package_id=name, package_version="1.0", patch_version=second)
    )
    assert await latest() == first
    await packages(cloud).DeregisterPackageVersion(
        pb.DeregisterPackageVersionRequest(package_id=name, package_version="1.0", patch_version=first)
    )
    with pytest.raises(NotFound):
        await latest()


async def test_who_withdraws_a_patch_may_say_which_is_the_latest_then(cloud: RunningCloud) -> None:
    uploader, patches = Uploader(cloud), []
    for text in ("first", "second", "third"):
        document = graphs.code_package()
        document["nodePackage"]["description"] = text
        patches.append(await uploader.register(document, text.encode()))
    broken = graphs.code_package()
    broken["nodePackage"]["interfaces"][0]["asset"] = "none"
    failed = await uploader.register(broken, b"fourth", latest=False)
    name = "packageName/people_counter_code"

    def withdrawal(patch: str, latest: str) -> Any:
        return packages(cloud).DeregisterPackageVersion(
            pb.DeregisterPackageVersionRequest(
                package_id=name, package_version="1.0", patch_version=patch, updated_latest_patch_version=latest
            )
        )

    with pytest.raises(NotFound):
        await withdrawal(patches[2], "0" * 64)
    with pytest.raises(Invalid, match="FAILED") as caught:
        await withdrawal(patches[2], failed)
    assert caught.value.fields[0][0] == "UpdatedLatestPatchVersion"
    with pytest.raises(Invalid, match="is to be withdrawn"):
        await withdrawal(patches[2], patches[2])
    await withdrawal(patches[2], patches[0])
    request = pb.DescribePackageVersionRequest(package_id=name, package_version="1.0")
    described = await packages(cloud).DescribePackageVersion(request)
    assert (described.patch_version, described.is_latest_patch) == (patches[0], True)


async def test_a_package_with_versions_is_deleted_only_by_force(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    await uploader.register(graphs.code_package(), b"one")
    request = pb.DeletePackageRequest(package_id="packageName/people_counter_code")
    with pytest.raises(Conflict, match="ForceDelete"):
        await packages(cloud).DeletePackage(request)
    await packages(cloud).DeletePackage(pb.DeletePackageRequest(package_id=request.package_id, force_delete=True))
    with pytest.raises(NotFound):
        await packages(cloud).DescribePackage(pb.DescribePackageRequest(package_id=request.package_id))
    assert not (await packages(cloud).ListNodes(pb.ListNodesRequest())).nodes
    left = await storage(cloud).ListObjects(storage_pb2.ListObjectsRequest(bucket=uploader.bucket))
    assert not left.objects


# Cameras


def camera_job(**parameters: str) -> pb.CreateNodeFromTemplateJobRequest:
    given: dict[str, Any] = {"StreamUrl": "rtsp://10.0.0.1:8554/door"} | parameters
    return pb.CreateNodeFromTemplateJobRequest(
        node_name="front-door",
        output_package_name="front-door",
        output_package_version="1.0",
        node_description="The door",
        template_parameters=given,
        template_type=pb.TEMPLATE_TYPE_RTSP_CAMERA_STREAM,
    )


async def sealed(cloud: RunningCloud, key: bytes) -> pb.SealCameraResponse:
    reference = pb.PackageReference(owner="123456789012", name="front-door", version="1.0")
    return await packages(cloud).SealCamera(pb.SealCameraRequest(reference=reference, seal_public_key=key))


async def test_a_camera_becomes_a_node_and_its_credentials_stay_unseen(cloud: RunningCloud, tmp_path: Path) -> None:
    job = await packages(cloud).CreateNodeFromTemplateJob(camera_job(Username="user-canary", Password="pass-canary"))
    shown = await packages(cloud).DescribeNodeFromTemplateJob(pb.DescribeNodeFromTemplateJobRequest(job_id=job.job_id))
    assert shown.status == pb.NODE_FROM_TEMPLATE_JOB_STATUS_SUCCEEDED
    assert dict(shown.template_parameters) == {
        "StreamUrl": "rtsp://10.0.0.1:8554/door",
        "Username": "SAVED_AS_SECRET",
        "Password": "SAVED_AS_SECRET",
    }
    (listed,) = (
        await packages(cloud).ListNodeFromTemplateJobs(pb.ListNodeFromTemplateJobsRequest())
    ).node_from_template_jobs
    assert listed.job_id == job.job_id
    (node,) = (await packages(cloud).ListNodes(pb.ListNodesRequest(category=pb.NODE_CATEGORY_MEDIA_SOURCE))).nodes
    assert (node.name, node.package_name, node.description) == ("front-door", "front-door", "The door")

    private, public = sealing.generate_keys()
    answer = await sealed(cloud, public)
    assert answer.stream_url == "rtsp://10.0.0.1:8554/door"
    opened = sealing.open(private, answer.sealed_credentials)
    assert (opened.username, opened.password) == (Secret("user-canary"), Secret("pass-canary"))

    await events(cloud, 3)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


async def test_a_camera_without_credentials_has_none_sealed(cloud: RunningCloud) -> None:
    await packages(cloud).CreateNodeFromTemplateJob(camera_job())
    assert (await sealed(cloud, sealing.generate_keys()[1])).sealed_credentials == b""


async def test_new_credentials_keep_the_patch_and_a_new_address_does_not(cloud: RunningCloud) -> None:
    private, public = sealing.generate_keys()
    name = pb.DescribePackageVersionRequest(package_id="packageName/front-door", package_version="1.0")
    await packages(cloud).CreateNodeFromTemplateJob(camera_job(Username="u", Password="wrong"))
    first = (await packages(cloud).DescribePackageVersion(name)).patch_version
    await packages(cloud).CreateNodeFromTemplateJob(camera_job(Username="u", Password="right"))
    assert (await packages(cloud).DescribePackageVersion(name)).patch_version == first
    assert sealing.open(private, (await sealed(cloud, public)).sealed_credentials).password == Secret("right")
    await packages(cloud).CreateNodeFromTemplateJob(camera_job(StreamUrl="rtsp://10.0.0.2/door"))
    assert (await packages(cloud).DescribePackageVersion(name)).patch_version != first
    assert (await sealed(cloud, public)).stream_url == "rtsp://10.0.0.2/door"


async def test_a_camera_does_not_take_the_place_of_code(cloud: RunningCloud) -> None:
    await Uploader(cloud).register(graphs.code_package(), b"one")
    request = camera_job()
    request.output_package_name = "people_counter_code"
    with pytest.raises(Conflict, match="is no camera"):
        await packages(cloud).CreateNodeFromTemplateJob(request)


async def test_a_wrong_address_is_refused_by_name(cloud: RunningCloud) -> None:
    with pytest.raises(Invalid) as caught:
        await packages(cloud).CreateNodeFromTemplateJob(camera_job(StreamUrl="http://x", Password="pass-canary"))
    assert caught.value.fields[0][0] == "TemplateParameters.StreamUrl"
    assert "canary" not in str(caught.value)


async def test_cameras_survive_a_restart(tmp_path: Path) -> None:
    private, public = sealing.generate_keys()
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            await packages(cloud).CreateNodeFromTemplateJob(camera_job(Username="u", Password="p"))
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            assert sealing.open(private, (await sealed(cloud, public)).sealed_credentials).username == Secret("u")


# Objects


async def test_objects_are_put_read_listed_and_deleted(cloud: RunningCloud) -> None:
    uploader = Uploader(cloud)
    for key in ("a/2", "a/1", "A/1", "b"):
        await uploader.put(key, key.encode())
    found = await storage(cloud).GetObject(storage_pb2.GetObjectRequest(bucket=uploader.bucket, key="a/1"))
    assert found.object.digest == "sha256:" + hashlib.sha256(b"a/1").hexdigest()
    listed = await storage(cloud).ListObjects(
        storage_pb2.ListObjectsRequest(bucket=uploader.bucket, prefix="a/", max_keys=1)
    )
    assert ([item.key for item in listed.objects], listed.truncated) == (["a/1"], True)
    rest = await storage(cloud).ListObjects(
        storage_pb2.ListObjectsRequest(bucket=uploader.bucket, prefix="a/", start_after="a/1")
    )
    assert ([item.key for item in rest.objects], rest.truncated) == (["a/2"], False)
    await storage(cloud).DeleteObject(storage_pb2.DeleteObjectRequest(bucket=uploader.bucket, key="b"))
    with pytest.raises(NotFound):
        await storage(cloud).GetObject(storage_pb2.GetObjectRequest(bucket=uploader.bucket, key="b"))


async def test_an_object_without_bytes_is_refused(cloud: RunningCloud) -> None:
    with pytest.raises(Invalid, match="store the bytes first"):
        await storage(cloud).PutObject(
            storage_pb2.PutObjectRequest(
                object=storage_pb2.StoredObject(
                    bucket="panorama-123456789012-us-east-1", key="x", digest="sha256:" + "0" * 64
                )
            )
        )


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (b"\x1f\x8bno archive", "not a whole .tar.gz file"),
        (tar_gz({"panorama/app.py": b"code"})[:-6], "not a whole .tar.gz file"),
        (tar_gz({"../panorama/app.py": b"code"}), "a name leads out of it"),
    ],
    ids=["text", "cut off", "leads out"],
)
async def test_an_archive_that_no_appliance_may_get_is_refused(
    cloud: RunningCloud, archive: bytes, problem: str
) -> None:
    patch = await Uploader(cloud).register(graphs.code_package(), archive)
    found = await Uploader(cloud).describe("people_counter_code", patch)
    assert found.status == pb.PACKAGE_VERSION_STATUS_FAILED
    assert "the archive is refused" in found.status_description and problem in found.status_description
