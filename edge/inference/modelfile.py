"""What kind of model a file is, by its content, and getting it out of an archive. Must not know any backend.

Assets have no names on the appliance, only digests, so that the content has to tell. Archives come from users:
nothing in them is written outside of the folder given, links and devices are left out, and sizes are bounded.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO

from edge.inference.errors import ModelInvalid, ModelUnsupported

# An archive may not unpack to more: larger models do not fit into an appliance's memory either.
UNPACKED_BYTES_MAX = 8 << 30
UNPACKED_FILES_MAX = 10_000
HEAD_BYTES = 4096


class ModelKind(StrEnum):
    """What a backend can be handed."""

    ONNX = "ONNX"
    TENSORFLOW_GRAPH = "TensorFlow frozen graph"
    TENSORFLOW_SAVED_MODEL = "TensorFlow SavedModel"
    TFLITE = "TFLite"
    OPENVINO_IR = "OpenVINO IR"


SUFFIXES = {
    ModelKind.ONNX: ".onnx",
    ModelKind.TENSORFLOW_GRAPH: ".pb",
    ModelKind.TFLITE: ".tflite",
    ModelKind.OPENVINO_IR: ".xml",
}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model, ready to be read: a file with the suffix of its kind, or the folder of a SavedModel."""

    kind: ModelKind
    path: Path


def find(asset: Path, work: Path) -> ModelFile:
    """The model in `asset`: itself, or the one in an archive, unpacked into the new folder `work`.

    Raises ModelInvalid where there is none or more than one, ModelUnsupported where it must be converted first.
    """
    head = _head(asset)
    if not head:
        raise ModelInvalid("the model file is empty; register its package version again with the model in it")
    work.mkdir(parents=True)
    if _is_archive(asset, head):
        _unpack(asset, work)
        return _in_folder(work)
    kind = _kind(head)
    # Backends go by the suffix; a link costs nothing.
    link = work / f"model{SUFFIXES[kind]}"
    link.symlink_to(asset.resolve())
    if kind == ModelKind.OPENVINO_IR:
        raise ModelInvalid("an OpenVINO model is two files, .xml and .bin: put both into one .zip or .tar.gz")
    return ModelFile(kind, link)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise ModelInvalid(f"the model file cannot be read: {error.strerror}") from error


def _is_archive(path: Path, head: bytes) -> bool:
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\x00":
        return True
    if head[:4] != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ModelInvalid("the model file is a damaged .zip archive; pack it and register it again") from error
    if any(PurePosixPath(name).name in ("data.pkl", "constants.pkl") for name in names):
        raise _needs_conversion("a PyTorch model (.pt, .pth)")
    return True


def _kind(head: bytes) -> ModelKind:
    if head[4:8] == b"TFL3":
        return ModelKind.TFLITE
    if head[:4] == b"\x89HDF":
        raise _needs_conversion("a Keras model (.h5, .keras)")
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        raise _needs_conversion("a Python pickle, as PyTorch writes it")
    if head[:5] == b"<?xml" and b"<net" in head:
        return ModelKind.OPENVINO_IR
    if _is_json_of_mxnet(head):
        raise _needs_conversion("an MXNet model")
    # Neither has a magic number. The first field of ONNX's ModelProto is a number (ir_version), that of TensorFlow's
    # GraphDef a node, which begins with its name.
    if head[:1] == b"\x08":
        return ModelKind.ONNX
    if head[:1] == b"\x0a" and head[_varint_end(head, 1) :][:1] == b"\x0a":
        return ModelKind.TENSORFLOW_GRAPH
    raise ModelInvalid(
        "the model file is no model that can be recognised (ONNX, TensorFlow frozen graph or SavedModel, TFLite, or an "
        "archive of one of these); check which file its package registers"
    )


def _is_json_of_mxnet(head: bytes) -> bool:
    return head[:1] == b"{" and b'"nodes"' in head and b'"op"' in head


def _varint_end(data: bytes, at: int) -> int:
    """Where the protobuf number that begins at `at` ends."""
    while at < len(data) and data[at] >= 0x80:
        at += 1
    return at + 1


def _needs_conversion(what: str) -> ModelUnsupported:
    return ModelUnsupported(f"the model is {what}; convert it to ONNX, and register that")


def _unpack(asset: Path, folder: Path) -> None:
    files = unpacked = 0
    try:
        for name, size, source in _members(asset):
            files += 1
            unpacked += size
            if files > UNPACKED_FILES_MAX or unpacked > UNPACKED_BYTES_MAX:
                raise ModelInvalid(
                    f"the model's archive holds more than {UNPACKED_FILES_MAX} files or {UNPACKED_BYTES_MAX >> 30} GiB"
                )
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(source, out)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelInvalid("the model's archive is damaged; pack it and register it again") from error
    except OSError as error:
        # gzip and lzma report damage as OSError without a number; a full disk has one.
        why = error.strerror or "it is damaged; pack it and register it again"
        raise ModelInvalid(f"the model's archive cannot be unpacked: {why}") from error


def _members(asset: Path) -> Iterator[tuple[PurePosixPath, int, IO[bytes]]]:
    """Regular files: name, size, content. Everything else, and whatever would lie outside of the folder, is left
    out.
    """
    if zipfile.is_zipfile(asset):
        with zipfile.ZipFile(asset) as archive:
            for info in archive.infolist():
                name = _safe(info.filename)
                # zipfile itself reads no more than `file_size` says.
                if name is not None and not info.is_dir() and (info.external_attr >> 16) & 0o170000 in (0, 0o100000):
                    with archive.open(info) as source:
                        yield name, info.file_size, source
        return
    with tarfile.open(asset, "r:*") as tar:
        for member in tar:
            name = _safe(member.name)
            if name is not None and member.isreg():
                opened = tar.extractfile(member)
                if opened is not None:
                    with opened:
                        yield name, member.size, opened


def _safe(name: str) -> PurePosixPath | None:
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part != "."]
    if not parts or path.is_absolute() or ".." in parts:
        return None
    return PurePosixPath(*parts)


def _in_folder(folder: Path) -> ModelFile:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found: list[ModelFile] = []
    problems: list[ModelUnsupported] = []
    for path in files:
        if path.name == "saved_model.pb":
            found.append(ModelFile(ModelKind.TENSORFLOW_SAVED_MODEL, path.parent))
        elif path.suffix in SUFFIXES.values() and path.parent.name != "variables":
            found.append(_with_suffix(path))
        elif path.suffix in (".pt", ".pth", ".h5", ".keras", ".params", ".json"):
            try:
                if not _is_archive(path, _head(path)):
                    _kind(_head(path))
            except ModelUnsupported as error:
                problems.append(error)
            except ModelInvalid:
                continue  # Labels, configuration: not what is looked for.
    if len(found) == 1:
        return found[0]
    if not found and problems:
        raise problems[0]
    names = ", ".join(str(path.relative_to(folder)) for path in files[:8]) or "no files"
    if not found:
        raise ModelInvalid(f"there is no model in the archive (.onnx, .pb, saved_model.pb, .tflite); it holds {names}")
    several = ", ".join(str(model.path.relative_to(folder)) for model in found[:8])
    raise ModelInvalid(f"there is more than one model in the archive ({several}); leave one in it")


def _with_suffix(path: Path) -> ModelFile:
    """A file in an archive whose suffix says what it is; its content must agree."""
    if path.suffix == ".xml":
        if not path.with_suffix(".bin").exists():
            raise ModelInvalid(
                f"{path.name} is an OpenVINO model without its {path.stem}.bin; put both into the archive"
            )
        return ModelFile(ModelKind.OPENVINO_IR, path)
    kind = _kind(_head(path))
    return ModelFile(kind, path)
