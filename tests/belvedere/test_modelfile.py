from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.modelfile import ModelFileInvalid, ModelKind, find
from tests.support.models import tiny_onnx, tiny_tensorflow


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def onnx_bytes(folder: Path) -> bytes:
    return tiny_onnx(folder / "tiny.onnx").read_bytes()


def test_a_model_without_a_name_is_known_by_its_content(tmp_path: Path) -> None:
    asset = tmp_path / "0a1b"
    assert find(tiny_onnx(asset), tmp_path / "w1").kind == ModelKind.ONNX
    assert find(tiny_tensorflow(asset), tmp_path / "w2").kind == ModelKind.TENSORFLOW_GRAPH
    asset.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(40))
    found = find(asset, tmp_path / "w3")
    assert (found.kind, found.path.suffix) == (ModelKind.TFLITE, ".tflite")
    assert found.path.read_bytes() == asset.read_bytes()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_model_in_a_tar_archive_is_found_beside_other_files(mode: str, tmp_path: Path, work: Path) -> None:
    files = {"export/labels.json": b"{}", "export/net.onnx": onnx_bytes(tmp_path), "README": b"hello"}
    found = find(tar_of(tmp_path / "asset", files, mode), work)
    assert (found.kind, found.path.relative_to(work)) == (ModelKind.ONNX, Path("export/net.onnx"))


def test_a_saved_model_in_a_zip_archive_is_its_folder(tmp_path: Path, work: Path) -> None:
    files = {"m/saved_model.pb": b"\x08\x01", "m/variables/variables.index": b"x"}
    found = find(zip_of(tmp_path / "asset", files), work)
    assert (found.kind, found.path) == (ModelKind.TENSORFLOW_SAVED_MODEL, work / "m")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"archive/data.pkl": b"\x80\x02}", "archive/version": b"3"}, ModelKind.TORCH_PICKLE),
        ({"archive/data.pkl": b"\x80\x02}", "archive/code/x.py": b""}, ModelKind.TORCHSCRIPT),
        ({"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"\x89HDF"}, ModelKind.KERAS),
    ],
)
def test_a_model_that_is_a_zip_itself_is_no_archive(
    files: dict[str, bytes], kind: ModelKind, tmp_path: Path, work: Path
) -> None:
    zipped = zip_of(tmp_path / "model", files)
    assert find(zipped, work).kind == kind
    name = "model.keras" if kind == ModelKind.KERAS else "model.pth"
    inside = tar_of(tmp_path / "asset.tar.gz", {name: zipped.read_bytes(), "labels.json": b"{}"})
    assert find(inside, tmp_path / "work2").kind == kind


def test_an_mxnet_model_is_its_symbol_beside_one_file_of_parameters(tmp_path: Path) -> None:
    asset = tmp_path / "asset"
    symbol = b'{"nodes": [{"op": "null", "name": "data"}]}'
    found = find(tar_of(asset, {"m-symbol.json": symbol, "m-0000.params": b"\x12\x01"}), tmp_path / "w1")
    assert (found.kind, found.path.name) == (ModelKind.MXNET, "m-symbol.json")
    with pytest.raises(ModelFileInvalid, match=r"with 0 files m….params beside it"):
        find(tar_of(asset, {"m-symbol.json": symbol}), tmp_path / "w2")
    asset.write_bytes(symbol)
    with pytest.raises(ModelFileInvalid, match=r"two files.*put both into one"):
        find(asset, tmp_path / "w3")


def test_an_archive_without_a_model_or_with_two_says_what_is_in_it(tmp_path: Path) -> None:
    asset = tmp_path / "asset"
    with pytest.raises(ModelFileInvalid, match=r"no model in the archive.*holds notes\.txt"):
        find(tar_of(asset, {"notes.txt": b"x"}), tmp_path / "w1")
    model = onnx_bytes(tmp_path)
    with pytest.raises(ModelFileInvalid, match=r"more than one model in the archive \(a\.onnx, b\.onnx\); leave one"):
        find(tar_of(asset, {"a.onnx": model, "b.onnx": model}), tmp_path / "w2")


def test_nothing_of_an_archive_is_written_outside_of_its_folder(tmp_path: Path, work: Path) -> None:
    model = onnx_bytes(tmp_path)
    outside = tmp_path / "outside"
    files = {"../outside": b"x", str(outside): b"x", "a/../../outside": b"x", "ok/net.onnx": model}
    assert find(tar_of(tmp_path / "a.tar", files, "w"), work).path == work / "ok/net.onnx"
    assert find(zip_of(tmp_path / "a.zip", files), tmp_path / "work2").kind == ModelKind.ONNX
    assert not outside.exists()


def test_links_and_devices_in_an_archive_are_left_out(tmp_path: Path, work: Path) -> None:
    asset = tmp_path / "asset"
    with tarfile.open(asset, "w") as archive:
        for name, kind, target in (
            ("net.onnx", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.onnx", tarfile.LNKTYPE, "/etc/passwd"),
            ("pipe.onnx", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    with pytest.raises(ModelFileInvalid, match=r"no model in the archive.*holds no files"):
        find(asset, work)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belvedere.modelfile.UNPACKED_FILES_MAX", 3)
    with pytest.raises(ModelFileInvalid, match="more than 3 files"):
        find(tar_of(tmp_path / "asset", {f"{number}.txt": b"" for number in range(5)}), work)


@pytest.mark.parametrize("cut", [30, 200])
def test_a_damaged_archive_is_invalid(cut: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40 + onnx_bytes(tmp_path)
    for number, asset in enumerate(
        (tar_of(tmp_path / "a", {"net.onnx": content}), zip_of(tmp_path / "b", {"net.onnx": content}))
    ):
        asset.write_bytes(asset.read_bytes()[:cut])
        with pytest.raises(ModelFileInvalid, match=r"damaged|no model in the archive"):
            find(asset, tmp_path / f"w{number}")


@given(st.binary(max_size=600))
def test_no_bytes_crash_it(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    asset = folder / "asset"
    asset.write_bytes(content)
    try:
        find(asset, folder / "work")
    except ModelFileInvalid as error:
        assert str(error)
