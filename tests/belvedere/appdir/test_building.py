"""Code packages built: bare, and for real with buildah; the archive starts in the supervisor's sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from belvedere.appdir import (
    AppFolder,
    BaseInvalid,
    EngineFailed,
    EngineMissing,
    NeedsContainerBuild,
    Package,
    build_code_asset,
    code_packages,
    new_app,
)
from belvedere.appdir.dockerfile import BASE_IMAGE
from belvedere.appdir.engines import Buildah
from edge.supervisor.rootfs import RootfsStore
from edge.supervisor.sandbox import SandboxSpec
from edge.supervisor.sandbox.bwrap import Bubblewrap
from edge.supervisor.sandbox.hostbase import HostBase

END_S = 30.0
NEEDS_ENGINE = f"FROM {BASE_IMAGE}\nCOPY src /panorama\nRUN echo made by a step > /made && ln -s /made /link\n"


@pytest.fixture
def app(tmp_path: Path) -> AppFolder:
    return new_app(tmp_path / "watch", "123456789012")


@pytest.fixture
def package(app: AppFolder) -> Package:
    return code_packages(app)[0]


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither docker nor buildah is installed."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.fixture
def buildah(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """buildah with storage of its own."""
    for program, debian in (("buildah", "buildah"), ("busybox", "busybox-static")):
        if shutil.which(program) is None:
            pytest.skip(f"needs the Debian package {debian}")
    store = tmp_path / "containers"
    config = tmp_path / "storage.conf"
    config.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{store}/graph"\nrunroot = "{store}/run"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(config))
    if problem := Buildah().problem():
        pytest.skip(problem)
    yield
    # Its files belong to other users of the user namespace.
    inside = [] if os.geteuid() == 0 else ["buildah", "unshare"]
    subprocess.run([*inside, "rm", "-rf", str(store)], check=True, timeout=END_S)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny root filesystem: a shell, and what it knows by itself."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    found = shutil.which("busybox")
    assert found is not None
    shutil.copy(found, root / "bin" / "busybox")
    for name in ("sh", "cat", "ln"):
        (root / "bin" / name).symlink_to("busybox")
    return root


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.usefixtures("no_engine")
def test_a_plain_dockerfile_is_built_bare_without_any_engine(app: AppFolder, package: Package) -> None:
    said: list[str] = []
    built = build_code_asset(app, package, say=said.append, base="some/image")
    assert built.how == "bare"
    assert built.asset.archive.name == hashlib.sha256(built.asset.archive.read_bytes()).hexdigest() + ".tar.gz"
    with tarfile.open(built.asset.archive) as tar:
        assert tar.getnames() == ["panorama", "panorama/application.py"]
    assert built.asset.patch_version == package.patch_version
    assert "some/image is not used: docker is not installed, and buildah is not installed" in said[0]


@pytest.mark.usefixtures("no_engine")
def test_without_an_engine_the_line_that_needs_one_is_named_and_what_to_install(
    app: AppFolder, package: Package
) -> None:
    (package.folder / "Dockerfile").write_text(NEEDS_ENGINE)
    with pytest.raises(NeedsContainerBuild, match="Dockerfile:3: `RUN echo") as refused:
        build_code_asset(app, package, say=print)
    assert "buildah is not installed" in str(refused.value) and "apt-get install buildah" in str(refused.value)
    with pytest.raises(EngineMissing, match="docker is not installed"):
        build_code_asset(app, package, say=print, engine="docker")
    with pytest.raises(NeedsContainerBuild, match="Dockerfile:3"):
        build_code_asset(app, package, say=print, engine="bare")
    assert package.document()["assets"] == []


@pytest.mark.usefixtures("no_engine")
def test_a_new_asset_takes_the_name_an_interface_asks_for_and_an_old_one_keeps_what_it_said(
    app: AppFolder, package: Package
) -> None:
    graph = app.graph()
    first = build_code_asset(app, package, say=print)
    assert (first.asset.name, first.node) == ("watch_code", None)
    assert app.graph() == graph
    content = document(package.document_path)
    requirements = [{"type": "device", "name": "panorama_devkit"}]
    content["nodePackage"]["assets"][0]["implementations"][0]["requirements"] = requirements
    content["nodePackage"]["assets"].append({"name": "other", "implementations": [{"type": "system", "assetUri": "x"}]})
    package.document_path.write_text(json.dumps(content))
    with (package.folder / "src" / "application.py").open("a") as code:
        code.write("# changed\n")
    second = build_code_asset(app, package, say=print)
    assert [asset["name"] for asset in package.document()["assets"]] == ["other", "watch_code"], "last, as panorama-cli"
    assert package.document()["assets"][1]["implementations"] == [
        {
            "type": "container",
            "assetUri": second.asset.archive.name,
            "descriptorUri": second.asset.descriptor.name,
            "requirements": requirements,
        }
    ]
    assert not first.asset.archive.exists() and second.asset.archive.exists()


@pytest.mark.usefixtures("no_engine")
def test_a_new_asset_without_an_interface_gets_one_and_a_node_in_the_graph(app: AppFolder, package: Package) -> None:
    content = document(package.document_path)
    content["nodePackage"]["interfaces"] = []
    package.document_path.write_text(json.dumps(content))
    built = build_code_asset(app, package, say=print, asset_name="eyes")
    assert built.node == "eyes_node"
    assert package.document()["interfaces"] == [
        {
            "name": "eyes_interface",
            "category": "business_logic",
            "asset": "eyes",
            "inputs": [{"name": "video_in", "type": "media"}],
            "outputs": [{"name": "video_out", "type": "media"}],
        }
    ]
    assert app.graph()["nodeGraph"]["nodes"][-1] == {
        "name": "eyes_node",
        "interface": "123456789012::WATCH_CODE.eyes_interface",
        "overridable": False,
        "launch": "onAppStart",
    }
    assert built.asset.patch_version == package.patch_version
    assert build_code_asset(app, package, say=print).node is None, "once"


@pytest.mark.debian
@pytest.mark.usefixtures("buildah")
async def test_what_buildah_builds_on_a_base_of_ones_own_starts_in_the_sandbox(
    app: AppFolder, package: Package, base: Path, tmp_path: Path
) -> None:
    (package.folder / "Dockerfile").write_text(NEEDS_ENGINE)
    (package.folder / "src" / "start.sh").write_text("cat /link\necho started by $1\n")
    said: list[str] = []
    built = await asyncio.to_thread(build_code_asset, app, package, say=said.append, engine="buildah", base=str(base))
    assert built.how == "buildah"
    assert built.asset.archive.name == hashlib.sha256(built.asset.archive.read_bytes()).hexdigest() + ".tar.gz"
    with tarfile.open(built.asset.archive) as tar:
        names = tar.getnames()
    assert names == sorted(names)
    assert {"bin/busybox", "made", "link", "panorama/application.py"} <= set(names)
    assert any("STEP" in line for line in said)

    root = await asyncio.to_thread(RootfsStore(tmp_path / "rootfs").ready, built.asset.archive)
    lines: list[str] = []
    argv = ("/bin/sh", "/panorama/start.sh", "the supervisor")
    spec = SandboxSpec(name="instance-1", rootfs=root, argv=argv, environment={"PATH": "/bin"})
    running = await Bubblewrap(HostBase(tmp_path / "base")).start(spec, lambda _, line: lines.append(line))
    async with asyncio.timeout(END_S):
        end = await running.wait()
    assert (end.code, end.refused, lines) == (0, None, ["made by a step", "started by the supervisor"])


@pytest.mark.debian
@pytest.mark.usefixtures("buildah")
def test_an_unchanged_package_is_the_same_archive_again_and_a_base_may_be_a_tar_file(
    app: AppFolder, package: Package, base: Path, tmp_path: Path
) -> None:
    (package.folder / "Dockerfile").write_text(NEEDS_ENGINE)
    packed = tmp_path / "root.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(base, arcname=".")
    said: list[str] = []
    first, second = (
        build_code_asset(app, package, say=said.append, engine="buildah", base=str(packed)).asset for _ in range(2)
    )
    assert first.archive.name == second.archive.name
    assert [line for line in said if "making an image" in line] == [f"making an image of {packed}"], "once"


@pytest.mark.debian
@pytest.mark.usefixtures("buildah")
def test_a_step_that_fails_is_told_and_leaves_the_package_as_it_was(
    app: AppFolder, package: Package, base: Path
) -> None:
    (package.folder / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo no such thing && false\n")
    before = package.document_path.read_bytes()
    with pytest.raises(EngineFailed, match="no such thing"):
        build_code_asset(app, package, say=print, engine="buildah", base=str(base))
    with pytest.raises(BaseInvalid, match="no such file"):
        build_code_asset(app, package, say=print, engine="buildah", base="./absent.tar")
    with pytest.raises(BaseInvalid, match="no image"):
        build_code_asset(app, package, say=print, engine="buildah", base="--rm\nRUN")
    assert package.document_path.read_bytes() == before
    assert [path.name for path in app.assets.iterdir()] == [".gitignore"]


@pytest.mark.debian
@pytest.mark.usefixtures("buildah")
def test_a_stream_that_is_cut_makes_no_archive(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineFailed, match="no such"),
        Buildah()._stream(["sh", "-c", "echo x; echo no such >&2; exit 3"]) as tar,
    ):
        while tar.read(1 << 20):
            pass
