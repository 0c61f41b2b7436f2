"""What kind of model a file is, by its content, and getting it out of an archive. Blocks; must not know backends or
converters.

Assets have no names, only digests, so that the content has to tell. Archives come from users: nothing in them is written
outside of the folder given, links and devices are left out, and sizes are bounded.

    ModelFileInvalid    no model, more than one, or damaged; the message says what to do
"""

from __future__ import annotations

import glob
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO

# An archive may not unpack to more: larger models do not fit into an appliance's memory either.
UNPACKED_BYTES_MAX = 8 << 30
UNPACKED_FILES_MAX = 10_000
HEAD_BYTES = 4096
_HDF = b"\x89HDF"


class ModelFileInvalid(Exception):
    """The file holds no model that can be used; the message says why and what to do."""


class ModelKind(StrEnum):
    """What a file is, in words for a message."""

    ONNX = "ONNX"
    TENSORFLOW_GRAPH = "TensorFlow frozen graph"
    TENSORFLOW_SAVED_MODEL = "TensorFlow SavedModel"
    TFLITE = "TFLite"
    OPENVINO_IR = "OpenVINO IR"
    TORCHSCRIPT = "PyTorch TorchScript"
    TORCH_PICKLE = "PyTorch pickle"
    KERAS = "Keras"
    MXNET = "MXNet"


FOR_APPLIANCES = frozenset(
    {
        ModelKind.ONNX,
        ModelKind.TENSORFLOW_GRAPH,
        ModelKind.TENSORFLOW_SAVED_MODEL,
        ModelKind.TFLITE,
        ModelKind.OPENVINO_IR,
    }
)
"""What appliances load as it is. The others are converted when their package is registered."""


SUFFIXES = {
    ModelKind.ONNX: ".onnx",
    ModelKind.TENSORFLOW_GRAPH: ".pb",
    ModelKind.TFLITE: ".tflite",
    ModelKind.OPENVINO_IR: ".xml",
    ModelKind.TORCHSCRIPT: ".pt",
    ModelKind.TORCH_PICKLE: ".pth",
}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model, ready to be read: a file with the suffix of its kind, or the folder of a SavedModel."""

    kind: ModelKind
    path: Path


def find(asset: Path, work: Path) -> ModelFile:
    """The model in `asset`: itself, or the one in an archive, unpacked into the new folder `work`.

    Raises ModelFileInvalid where there is none or more than one.
    """
    head = _head(asset)
    if not head:
        raise ModelFileInvalid("the model file is empty; register its package version again with the model in it")
    work.mkdir(parents=True)
    if _is_archive(asset, head):
        kind = _kind_of_zip(asset)
        if kind is None:
            _unpack(asset, work)
            return _in_folder(work)
    else:
        kind = _kind(head)
    if kind == ModelKind.OPENVINO_IR:
        raise ModelFileInvalid("an OpenVINO model is two files, .xml and .bin: put both into one .zip or .tar.gz")
    if kind == ModelKind.MXNET:
        raise ModelFileInvalid("an MXNet model is two files, -symbol.json and .params: put both into one .tar.gz")
    # Backends go by the suffix; a link costs nothing.
    link = work / f"model{_suffix(kind, head)}"
    link.symlink_to(asset.resolve())
    return ModelFile(kind, link)


def _suffix(kind: ModelKind, head: bytes) -> str:
    if kind == ModelKind.KERAS:
        return ".h5" if head[:4] == _HDF else ".keras"
    return SUFFIXES[kind]


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise ModelFileInvalid(f"the model file cannot be read: {error.strerror}") from error


def _is_archive(path: Path, head: bytes) -> bool:
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\x00":
        return True
    return head[:4] == b"PK\x03\x04"


def _kind_of_zip(path: Path) -> ModelKind | None:
    """The kind of a model that is a .zip itself; None for an archive with a model in it."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ModelFileInvalid("the model file is a damaged .zip archive; pack it and register it again") from error
    if any(name.name == "data.pkl" for name in names):
        # Scripted modules have their code beside the data; a pickled one is data alone.
        scripted = any(name.name == "constants.pkl" or "code" in name.parts for name in names)
        return ModelKind.TORCHSCRIPT if scripted else ModelKind.TORCH_PICKLE
    if {"config.json", "model.weights.h5"} <= {str(name) for name in names}:
        return ModelKind.KERAS
    return None


def _kind(head: bytes) -> ModelKind:
    if head[4:8] == b"TFL3":
        return ModelKind.TFLITE
    if head[:4] == _HDF:
        return ModelKind.KERAS
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return ModelKind.TORCH_PICKLE
    if head[:5] == b"<?xml" and b"<net" in head:
        return ModelKind.OPENVINO_IR
    if _is_json_of_mxnet(head):
        return ModelKind.MXNET
    # Neither has a magic number. The first field of ONNX's ModelProto is a number (ir_version), that of TensorFlow's
    # GraphDef a node, which begins with its name.
    if head[:1] == b"\x08":
        return ModelKind.ONNX
    if head[:1] == b"\x0a" and head[_varint_end(head, 1) :][:1] == b"\x0a":
        return ModelKind.TENSORFLOW_GRAPH
    raise ModelFileInvalid(
        "the model file is no model that can be recognised (ONNX, TensorFlow, TFLite, Keras, TorchScript, MXNet, or an "
        "archive of one of these); check which file its package registers"
    )


def _is_json_of_mxnet(head: bytes) -> bool:
    return head[:1] == b"{" and b'"nodes"' in head and b'"op"' in head


def _varint_end(data: bytes, at: int) -> int:
    """Where the protobuf number that begins at `at` ends."""
    while at < len(data) and data[at] >= 0x80:
        at += 1
    return at + 1


def _unpack(asset: Path, folder: Path) -> None:
    files = unpacked = 0
    try:
        for name, size, source in _members(asset):
            files += 1
            unpacked += size
            if files > UNPACKED_FILES_MAX or unpacked > UNPACKED_BYTES_MAX:
                raise ModelFileInvalid(
                    f"the model's archive holds more than {UNPACKED_FILES_MAX} files or {UNPACKED_BYTES_MAX >> 30} GiB"
                )
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(source, out)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileInvalid("the model's archive is damaged; pack it and register it again") from error
    except OSError as error:
        # gzip and lzma report damage as OSError without a number; a full disk has one.
        why = error.strerror or "it is damaged; pack it and register it again"
        raise ModelFileInvalid(f"the model's archive cannot be unpacked: {why}") from error


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
    found = [model for path in files if (model := _of_file(path)) is not None]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(path.relative_to(folder)) for path in files[:8]) or "no files"
    if not found:
        raise ModelFileInvalid(
            "there is no model in the archive (.onnx, .pb, saved_model.pb, .tflite, .pt, .pth, .h5, .keras, "
            f"-symbol.json with .params); it holds {names}"
        )
    several = ", ".join(str(model.path.relative_to(folder)) for model in found[:8])
    raise ModelFileInvalid(f"there is more than one model in the archive ({several}); leave one in it")


def _of_file(path: Path) -> ModelFile | None:
    """The model that a file of an archive is, or None: labels, configuration, weights beside a model."""
    if path.name == "saved_model.pb":
        return ModelFile(ModelKind.TENSORFLOW_SAVED_MODEL, path.parent)
    if path.name == "fingerprint.pb" or path.parent.name == "variables":
        return None
    if path.suffix == ".xml":
        if not path.with_suffix(".bin").exists():
            raise ModelFileInvalid(
                f"{path.name} is an OpenVINO model without its {path.stem}.bin; put both into the archive"
            )
        return ModelFile(ModelKind.OPENVINO_IR, path)
    if path.name.endswith("-symbol.json"):
        if not _is_json_of_mxnet(_head(path)):
            return None
        prefix = path.name.removesuffix("-symbol.json")
        weights = sorted(path.parent.glob(f"{glob.escape(prefix)}*.params"))
        if len(weights) != 1:
            raise ModelFileInvalid(
                f"{path.name} is an MXNet model, with {len(weights)} files {prefix}….params beside it; exactly one is needed"
            )
        return ModelFile(ModelKind.MXNET, path)
    if path.suffix in (".pt", ".pth", ".keras", ".h5", ".hdf5"):
        return ModelFile(_kind_of_zip(path) or _kind(_head(path)), path)
    if path.suffix in (".onnx", ".pb", ".tflite"):
        # Its suffix says what it is; its content must agree with some kind of model.
        return ModelFile(_kind(_head(path)), path)
    return None
