"""What can not be deployed, or withdrawn while it is deployed, and what is said about it."""

from __future__ import annotations

import json

import pytest

from belvedere.chassis.errors import Conflict, Invalid
from belvedere.v1 import deployments_pb2 as pb
from belvedere.v1 import packages_pb2, packages_pb2_grpc
from tests.support import graphs
from tests.support.cloud import RunningCloud
from tests.support.deploying import deploy, remove, stub
from tests.support.fleet import Device


async def test_documents_that_give_no_graph_name_every_place(cloud: RunningCloud, device: Device) -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    manifest["nodeGraph"]["packages"][1]["name"] = "123456789012::absent"
    overrides["nodeGraphOverrides"]["packages"][0]["version"] = "2.0"
    with pytest.raises(Invalid) as caught:
        await stub(cloud).CreateApplicationInstance(
            pb.CreateApplicationInstanceRequest(
                default_runtime_context_device=device.device_id,
                manifest_payload=pb.ManifestPayload(payload_data=json.dumps(manifest)),
                manifest_overrides_payload=pb.ManifestOverridesPayload(payload_data=json.dumps(overrides)),
            )
        )
    assert dict(caught.value.fields) == {
        "packages[1]": "No registered package version found for accountId:123456789012, packageName:absent, "
        "packageVersion:1.0",
        "overrides.packages[0]": "No registered package version found for accountId:123456789012, packageName:north, "
        "packageVersion:2.0",
        "nodes[2].interface": 'no package "123456789012::person_detector" in packages',
    }


async def test_the_request_its_documents_and_what_they_name_are_looked_at_in_one_go(cloud: RunningCloud) -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["edges"].append({"producer": "ghost", "consumer": "code_node.threshold"})
    manifest["nodeGraph"]["description"] = 7
    with pytest.raises(Invalid, match="5 more in fields") as caught:
        await stub(cloud).CreateApplicationInstance(
            pb.CreateApplicationInstanceRequest(
                default_runtime_context_device="device-absent",
                runtime_role_arn="arn:aws:iam::123456789012:role/absent",
                application_instance_id_to_replace="applicationInstance-absent",
                tags={"aws:mine": "x"},
                manifest_payload=pb.ManifestPayload(payload_data=json.dumps(manifest)),
                manifest_overrides_payload=pb.ManifestOverridesPayload(
                    payload_data=json.dumps(graphs.overrides("north"))
                ),
            )
        )
    assert [path for path, _ in caught.value.fields] == [
        "Tags.aws:mine",
        "RuntimeRoleArn",
        "DefaultRuntimeContextDevice",
        "ApplicationInstanceIdToReplace",
        "description",
        "edges[4].producer",
    ]


async def test_a_device_that_is_not_there_is_refused(cloud: RunningCloud) -> None:
    with pytest.raises(Invalid, match="no device 'device-absent'"):
        await deploy(cloud, "device-absent")


async def test_a_package_in_use_can_not_be_withdrawn(cloud: RunningCloud, device: Device) -> None:
    packages = packages_pb2_grpc.PackagesServiceStub(cloud.channel)
    instance_id = await deploy(cloud, device.device_id)
    name = "packageName/people_counter_code"
    version = await packages.DescribePackageVersion(
        packages_pb2.DescribePackageVersionRequest(package_id=name, package_version="1.0")
    )
    with pytest.raises(Conflict, match=instance_id):
        await packages.DeregisterPackageVersion(
            packages_pb2.DeregisterPackageVersionRequest(
                package_id=name, package_version="1.0", patch_version=version.patch_version
            )
        )
    with pytest.raises(Conflict, match=instance_id):
        await packages.DeletePackage(packages_pb2.DeletePackageRequest(package_id=name, force_delete=True))
    used = await stub(cloud).ListApplicationInstanceDependencies(
        pb.ListApplicationInstanceDependenciesRequest(application_instance_id=instance_id)
    )
    assert [item.name for item in used.package_objects] == ["people_counter_code", "person_detector", "north"]


async def test_a_second_code_node_and_values_between_nodes_are_refused_by_name(
    cloud: RunningCloud, device: Device
) -> None:
    manifest = graphs.manifest()
    inner = manifest["nodeGraph"]
    inner["nodes"].append({"name": "second", "interface": f"{graphs.ACCOUNT}::people_counter_code.code_interface"})
    inner["edges"].append({"producer": "detector.video_out", "consumer": "second.title"})
    with pytest.raises(Invalid) as caught:
        await stub(cloud).CreateApplicationInstance(
            pb.CreateApplicationInstanceRequest(
                default_runtime_context_device=device.device_id,
                manifest_payload=pb.ManifestPayload(payload_data=json.dumps(manifest)),
                manifest_overrides_payload=pb.ManifestOverridesPayload(
                    payload_data=json.dumps(graphs.overrides("north"))
                ),
            )
        )
    fields = dict(caught.value.fields)
    assert fields["nodes[6]"].startswith('"second" is the second business logic node after "code_node"')
    assert fields["edges[4]"] == "detector.video_out is media, but second.title takes string"


async def test_a_port_that_another_application_of_the_device_has_is_refused_with_everything_else(
    cloud: RunningCloud, device: Device
) -> None:
    def request(
        name: str, replaces: str = "", extra: dict[str, str] | None = None
    ) -> pb.CreateApplicationInstanceRequest:
        manifest, overrides = graphs.manifest(), graphs.overrides("north")
        manifest["nodeGraph"]["edges"] += [extra] if extra else []
        rule = {"node": "code_node", "containerPort": 8080, "hostPort": 8001}
        overrides["nodeGraphOverrides"]["networkRoutingRules"] = [rule]
        made = pb.CreateApplicationInstanceRequest(
            name=name,
            default_runtime_context_device=device.device_id,
            manifest_payload=pb.ManifestPayload(payload_data=json.dumps(manifest)),
            manifest_overrides_payload=pb.ManifestOverridesPayload(payload_data=json.dumps(overrides)),
        )
        if replaces:
            made.application_instance_id_to_replace = replaces
        return made

    first = (await stub(cloud).CreateApplicationInstance(request("door"))).application_instance_id
    with pytest.raises(Invalid) as caught:
        wrong = {"producer": "nobody", "consumer": "code_node.title"}
        await stub(cloud).CreateApplicationInstance(request("yard", extra=wrong))
    assert list(caught.value.fields) == [
        ("edges[4].producer", 'no node "nobody" in nodes'),
        (
            "overrides.networkRoutingRules[0].hostPort",
            f'8001 is taken on this device by application "door" ({first}): choose another',
        ),
    ]
    second = (await stub(cloud).CreateApplicationInstance(request("door", replaces=first))).application_instance_id
    await remove(cloud, second)
    await stub(cloud).CreateApplicationInstance(request("yard"))
