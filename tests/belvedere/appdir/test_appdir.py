"""Application folders: found, packaged, the same input giving the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from belvedere.appdir import (
    AppFolder,
    AssetMissing,
    DocumentInvalid,
    NeedsContainerBuild,
    NotAnAppFolder,
    PackageNotFound,
    add_model_asset,
    build_container_asset,
)

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "people-counter"


@pytest.fixture
def folder(tmp_path: Path) -> AppFolder:
    return AppFolder.load(EXAMPLE, into=tmp_path / "build")


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_folder_in_the_layout_of_aws_tools_is_found(folder: AppFolder) -> None:
    assert folder.name == "people-counter"
    assert [package.name for package in folder.packages()] == ["PEOPLE_COUNTER_CODE", "PERSON_DETECTOR"]
    code = folder.package("PEOPLE_COUNTER_CODE")
    assert (code.account, code.version) == ("123456789012", "1.0")
    assert code.patch_version == hashlib.sha256(code.document_path.read_bytes()).hexdigest()
    assert folder.graph()["nodeGraph"]["envelopeVersion"] == "2021-01-01"


def test_packaging_a_copy_leaves_the_original_as_it_is(tmp_path: Path) -> None:
    before = tree(EXAMPLE)
    folder = AppFolder.load(EXAMPLE, into=tmp_path)
    build_container_asset(folder.package("PEOPLE_COUNTER_CODE").folder, folder.assets)
    assert tree(EXAMPLE) == before


def test_a_bare_archive_has_the_code_below_panorama_and_is_named_by_its_digest(folder: AppFolder) -> None:
    package = folder.package("PEOPLE_COUNTER_CODE")
    (package.folder / "src" / "__pycache__").mkdir()
    (package.folder / "src" / "__pycache__" / "application.cpython-311.pyc").write_bytes(b"x")
    built = build_container_asset(package.folder, folder.assets)
    assert built.name == "people_counter"
    assert built.archive.name == hashlib.sha256(built.archive.read_bytes()).hexdigest() + ".tar.gz"
    with tarfile.open(built.archive) as tar:
        assert tar.getnames() == ["panorama", "panorama/application.py", "panorama/metrics.py"]
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "root")}
    implementation = package.document()["assets"][0]["implementations"][0]
    assert implementation == {
        "type": "container",
        "assetUri": built.archive.name,
        "descriptorUri": built.descriptor.name,
    }
    assert built.patch_version == package.patch_version
    assert [file.path for file in package.files(folder.assets)] == [built.archive, built.descriptor]


def test_the_same_code_gives_the_same_bytes_whenever_and_wherever_it_is_packed(tmp_path: Path) -> None:
    built = []
    for name, umask in (("one", 0o022), ("two", 0o077)):
        old = os.umask(umask)
        try:
            folder = AppFolder.load(EXAMPLE, into=tmp_path / name)
            for path in (folder.package("PEOPLE_COUNTER_CODE").folder / "src").iterdir():
                os.utime(path, (len(name) * umask, len(name) * umask))
            built.append(build_container_asset(folder.package("PEOPLE_COUNTER_CODE").folder, folder.assets))
        finally:
            os.umask(old)
    assert built[0].archive.name == built[1].archive.name
    assert built[0].patch_version == built[1].patch_version


def test_one_changed_line_is_a_new_version_and_the_old_archive_goes(folder: AppFolder) -> None:
    package = folder.package("PEOPLE_COUNTER_CODE")
    first = build_container_asset(package.folder, folder.assets)
    with (package.folder / "src" / "application.py").open("a") as code:
        code.write("# one more line\n")
    second = build_container_asset(package.folder, folder.assets)
    assert second.patch_version != first.patch_version
    assert not first.archive.exists() and second.archive.exists()
    assert first.descriptor == second.descriptor and second.descriptor.exists()


def test_a_model_file_is_packed_as_it_is_under_its_own_name(folder: AppFolder, tmp_path: Path) -> None:
    model = tmp_path / "frozen_inference_graph.pb"
    model.write_bytes(os.urandom(300_000))
    package = folder.package("PERSON_DETECTOR")
    built = add_model_asset(package.folder, folder.assets, model, package.folder / "descriptor.json")
    with tarfile.open(built.archive) as tar:
        content = tar.extractfile("frozen_inference_graph.pb")
        assert content is not None and content.read() == model.read_bytes()
    again = add_model_asset(package.folder, folder.assets, built.archive, package.folder / "descriptor.json")
    assert again.archive == built.archive and built.archive.exists()


def test_a_new_asset_needs_a_name_and_is_added(folder: AppFolder) -> None:
    package = folder.package("PEOPLE_COUNTER_CODE")
    document = json.loads(package.document_path.read_text())
    document["nodePackage"]["assets"] = []
    package.document_path.write_text(json.dumps(document))
    with pytest.raises(DocumentInvalid, match="give the new one a name"):
        build_container_asset(package.folder, folder.assets)
    built = build_container_asset(package.folder, folder.assets, asset_name="code")
    assert package.document()["assets"][0]["name"] == "code" == built.name


@pytest.mark.parametrize("line", ["RUN pip3 install torch", "FROM ubuntu:22.04", "COPY requirements.txt /"])
def test_a_dockerfile_that_asks_for_more_needs_a_container_engine(line: str, folder: AppFolder) -> None:
    package = folder.package("PEOPLE_COUNTER_CODE")
    with (package.folder / "Dockerfile").open("a") as dockerfile:
        dockerfile.write(f"# more\n{line}\n")
    with pytest.raises(NeedsContainerBuild, match=f"Dockerfile:4: `{line}`"):
        build_container_asset(package.folder, folder.assets)


def test_what_is_missing_is_named(folder: AppFolder, tmp_path: Path) -> None:
    with pytest.raises(AssetMissing, match=r"people_counter\.tar\.gz"):
        folder.package("PEOPLE_COUNTER_CODE").files(folder.assets)
    with pytest.raises(PackageNotFound, match="PEOPLE_COUNTER_CODE, PERSON_DETECTOR"):
        folder.package("CAR_COUNTER")
    package = folder.package("PERSON_DETECTOR")
    with pytest.raises(AssetMissing, match="no-model"):
        add_model_asset(package.folder, folder.assets, tmp_path / "no-model", package.folder / "descriptor.json")
    with pytest.raises(DocumentInvalid, match="mlModelDescriptor"):
        code = folder.package("PEOPLE_COUNTER_CODE").folder / "descriptor.json"
        add_model_asset(package.folder, folder.assets, code, code)
    shutil.rmtree(folder.root / "graphs" / "people-counter")
    with pytest.raises(NotAnAppFolder, match="graphs/ is empty"):
        AppFolder.load(folder.root)
    with pytest.raises(NotAnAppFolder, match="no folder graphs/"):
        AppFolder.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"nodePackage": 3}', "[" * 100_000])
def test_a_package_document_that_cannot_be_read_says_where(text: str, folder: AppFolder) -> None:
    package = folder.package("PEOPLE_COUNTER_CODE")
    package.document_path.write_text(text)
    with pytest.raises(DocumentInvalid, match=r"package\.json"):
        build_container_asset(package.folder, folder.assets)
