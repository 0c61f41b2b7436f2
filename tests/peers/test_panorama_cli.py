"""panorama-cli 1.1.6, unmodified: a project from nothing to registered packages. It calls the AWS CLI for everything."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support import graphs
from tests.support.clients import INSTALL_TIMEOUT_S, Clients
from tests.support.cloud import ACCOUNT, REGION, RunningCloud
from tests.support.front_door import Door
from tests.support.models import tiny_tensorflow_bytes

pytestmark = [pytest.mark.peers, pytest.mark.timeout(INSTALL_TIMEOUT_S + 120)]

BUCKET = f"panorama-{ACCOUNT}-{REGION}"
UPLOADS = {"PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload", "RegisterPackageVersion"}


@dataclass
class Project:
    """An application project, and panorama-cli in it. Names are the test's own: all tests share one account."""

    door: Door
    tools: Clients
    above: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def folder(self) -> Path:
        return self.above / "shop"

    @property
    def graph(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "graphs" / "shop" / "graph.json").read_text())["nodeGraph"]
        return found

    def package(self, name: str) -> Path:
        return self.folder / "packages" / f"{ACCOUNT}-{self.name(name)}-1.0"

    def name(self, name: str) -> str:
        return f"{name}_{self.mark}"

    def cli(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.tools.run(self.door, ["panorama-cli", *command], cwd=cwd or self.folder)

    def made_requests(self, *command: str) -> list[str]:
        """Runs a command; the operations that the front door's request log says it asked for."""
        with capture_logs() as lines:
            self.cli(*command)
            self.door.call(some_turns)  # the last answer may have gone out before its line was written
        asked = [line for line in lines if line["event"] == "request"]
        assert not [line for line in asked if line["status"] >= 500]
        return [str(line["operation"]) for line in asked]


async def some_turns(_: RunningCloud) -> None:
    for _turn in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def project(door: Door, tools: Clients, tmp_path: Path) -> Iterator[Project]:
    made = Project(door, tools, tmp_path)
    made.cli("init-project", "--name", "shop", cwd=tmp_path)
    yield made


def add_container(project: Project, package: str, size: int) -> None:
    """What build-container leaves behind, without Docker: an archive of a filesystem, its descriptor, package.json's entry."""
    assets, folder = project.folder / "assets", project.package(package)
    big = project.above / "app.bin"
    big.write_bytes(bytes(range(256)) * (size // 256))
    packed = project.above / "code.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=0) as archive:
        archive.add(big, "panorama/app.py")
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    shutil.move(packed, assets / f"{digest}.tar.gz")
    descriptor = json.dumps(graphs.RUNTIME_DESCRIPTOR).encode()
    described = hashlib.sha256(descriptor).hexdigest()
    (assets / f"{described}.json").write_bytes(descriptor)
    document = json.loads((folder / "package.json").read_text())
    items = [{"type": "container", "assetUri": f"{digest}.tar.gz", "descriptorUri": f"{described}.json"}]
    document["nodePackage"]["assets"] = [{"name": "code", "implementations": items}]
    document["nodePackage"]["interfaces"] = [graphs.code_package()["nodePackage"]["interfaces"][0]]
    (folder / "package.json").write_text(json.dumps(document, indent=4))


def pack_model(path: Path) -> None:
    """A model as AWS wants it: in a .tar.gz."""
    model = tiny_tensorflow_bytes()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("frozen_inference_graph.pb")
        member.size = len(model)
        archive.addfile(member, io.BytesIO(model))


def add_descriptor(project: Project) -> Path:
    path = project.above / "model.json"
    path.write_text(json.dumps(graphs.MODEL_DESCRIPTOR))
    return path


def test_the_command_line_is_the_one_that_users_start(door: Door, installed_tools: Clients, tmp_path: Path) -> None:
    project = Project(door, installed_tools, tmp_path)
    project.cli("init-project", "--name", "shop", cwd=tmp_path)
    project.cli("create-package", "--name", project.name("model"), "--type", "Model")
    assert door.client("panorama").describe_package(PackageId=f"packageName/{project.name('model')}")["PackageId"]


def test_packages_of_every_type_are_made_and_known_to_the_cloud(project: Project) -> None:
    for kind in ("Container", "Model", "Camera", "Datasink"):
        project.cli("create-package", "--name", project.name(kind.lower()), "--type", kind)
        assert (project.package(kind.lower()) / "package.json").is_file()
    project.cli("add-panorama-package", "--type", "camera", "--name", "front_door")
    project.cli("add-panorama-package", "--type", "data_sink", "--name", "screen")
    named = {entry["name"] for entry in project.graph["packages"]}
    assert {f"{ACCOUNT}::{project.name('container')}", "panorama::hdmi_data_sink"} <= named
    interfaces = {node["name"]: node["interface"] for node in project.graph["nodes"]}
    assert interfaces["front_door"] == "panorama::abstract_rtsp_media_source.rtsp_v1_interface"
    assert interfaces["screen"] == "panorama::hdmi_data_sink.hdmi0"
    panorama = project.door.client("panorama")
    for kind in ("container", "model", "camera", "datasink"):
        assert panorama.describe_package(PackageId=f"packageName/{project.name(kind)}")["PackageId"]


def test_an_application_is_packaged_once_and_the_second_time_uploads_nothing(project: Project) -> None:
    project.cli("create-package", "--name", project.name("code"))
    add_container(project, "code", 9 << 20)
    project.cli("create-package", "--name", project.name("model"), "--type", "Model")
    pack_model(project.above / "model.tar.gz")
    descriptor, raw = add_descriptor(project), str(project.above / "model.tar.gz")
    model = ["add-raw-model", "--model-asset-name", "detector", "--descriptor-path", str(descriptor)]
    project.cli(*model, "--model-local-path", raw, "--packages-path", str(project.package("model")))

    first = project.made_requests("package-application")
    assert set(first) >= UPLOADS
    panorama, latest = project.door.client("panorama"), {}
    for name, category in (("code", "BUSINESS_LOGIC"), ("model", "ML_MODEL")):
        version = panorama.describe_package_version(PackageId=f"packageName/{project.name(name)}", PackageVersion="1.0")
        document = (project.package(name) / "package.json").read_bytes()
        assert version["Status"] == "REGISTER_COMPLETED", version.get("StatusDescription")
        assert version["PatchVersion"] == hashlib.sha256(document).hexdigest() and version["IsLatestPatch"]
        (node,) = panorama.list_nodes(PackageName=project.name(name))["Nodes"]
        assert node["Category"] == category
        latest[name] = version["PatchVersion"]

    second = project.made_requests("package-application")
    assert second and not UPLOADS.intersection(second)
    assert all(operation.startswith(("Get", "Describe", "List", "Head")) for operation in second), second

    # A changed package.json: a new patch takes the old one's place, the assets stay where they are.
    path = project.package("code") / "package.json"
    document = json.loads(path.read_text())
    document["nodePackage"]["description"] = "changed"
    path.write_text(json.dumps(document, indent=4))
    third = project.made_requests("package-application", "--packages-path", str(project.package("code")))
    assert {"PutObject", "RegisterPackageVersion", "DeregisterPackageVersion"} <= set(third)
    assert not {"CreateMultipartUpload", "UploadPart"}.intersection(third)
    version = panorama.describe_package_version(PackageId=f"packageName/{project.name('code')}", PackageVersion="1.0")
    assert version["PatchVersion"] not in latest.values() and version["Status"] == "REGISTER_COMPLETED"


def test_a_model_comes_from_a_bucket(project: Project) -> None:
    s3, weights = project.door.client("s3"), b"weights from a bucket"
    bucket = f"models-{project.mark}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="raw/model.tar.gz", Body=weights)
    project.cli("create-package", "--name", project.name("model"), "--type", "Model")
    model = ["add-raw-model", "--model-asset-name", "detector", "--descriptor-path", str(add_descriptor(project))]
    place = ["--packages-path", str(project.package("model"))]
    project.cli(*model, "--model-s3-uri", f"s3://{bucket}/raw/model.tar.gz", *place)
    stored = project.folder / "assets" / f"{hashlib.sha256(weights).hexdigest()}.tar.gz"
    assert stored.read_bytes() == weights
    assert "detector" in {node["name"] for node in project.graph["nodes"]}


def test_an_application_of_another_account_is_imported_and_packaged(project: Project) -> None:
    project.cli("create-package", "--name", project.name("code"))
    add_container(project, "code", 1 << 10)
    theirs = "999999999999"
    project.package("code").rename(project.folder / "packages" / f"{theirs}-{project.name('code')}-1.0")
    graph = project.folder / "graphs" / "shop" / "graph.json"
    graph.write_text(graph.read_text().replace(ACCOUNT, theirs))
    project.cli("import-application")
    assert project.package("code").is_dir()
    assert theirs not in graph.read_text() and f"{ACCOUNT}::{project.name('code')}" in graph.read_text()
    project.cli("package-application")
    version = project.door.client("panorama").describe_package_version(
        PackageId=f"packageName/{project.name('code')}", PackageVersion="1.0"
    )
    assert version["Status"] == "REGISTER_COMPLETED", version.get("StatusDescription")
    assert project.door.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"]
