"""Making the assets of a package and writing their names into its package.json, as panorama-cli does.

Archives are reproducible: the same input gives the same bytes, so the same digest, so nothing to upload or to deploy.
Knows no container engine: a code package without one is "bare", only `panorama/…`, and runs on the
appliance's own base.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from belvedere.appdir.errors import AssetMissing, DocumentInvalid, NeedsContainerBuild
from belvedere.appdir.folder import Package, read_document

BASE_IMAGE = "public.ecr.aws/panorama/panorama-application"
"""The image that stands for the appliance's own base."""

CODE_ROOT = "panorama"
"""Where application code lies in the container, from the root."""

_LEFT_OUT = ("__pycache__", ".DS_Store")
_COMPRESS_LEVEL = 6
_CHUNK = 1 << 20


@dataclass(frozen=True)
class BuiltAsset:
    """What packaging made of one asset."""

    name: str
    """The asset's name in package.json."""

    archive: Path
    """`<sha256>.tar.gz` in the assets folder."""

    descriptor: Path
    """`<sha256>.json` in the assets folder."""

    patch_version: str
    """Of the package, now that package.json names these files."""


def build_container_asset(
    package_dir: str | Path, assets_dir: str | Path, *, asset_name: str | None = None
) -> BuiltAsset:
    """Packs `src/` of a code package as a bare container archive and names it, with `descriptor.json`, in package.json.

    `asset_name` is needed only where package.json has no container asset yet, or several.
    Raises NeedsContainerBuild, AssetMissing, DocumentInvalid.
    """
    folder, assets = Path(package_dir), Path(assets_dir)
    source = folder / "src"
    if not source.is_dir():
        raise AssetMissing(source, f"package {folder.name}", "put the application's code there")
    _check_dockerfile(folder / "Dockerfile")
    descriptor = folder / "descriptor.json"
    _check_descriptor(descriptor, "runtimeDescriptor")
    archive = _store(assets, _pack(_tree(source)))
    return _record(folder, assets, "container", archive, descriptor, asset_name)


def add_model_asset(
    package_dir: str | Path,
    assets_dir: str | Path,
    model_file: str | Path,
    descriptor: str | Path,
    *,
    asset_name: str | None = None,
) -> BuiltAsset:
    """Packs a model file as the model asset of a package (a `.tar.gz` is taken as it is) and names it in package.json.

    Raises AssetMissing, DocumentInvalid.
    """
    folder, assets, model = Path(package_dir), Path(assets_dir), Path(model_file)
    if not model.is_file():
        raise AssetMissing(model, f"package {folder.name}", "name the model file")
    _check_descriptor(Path(descriptor), "mlModelDescriptor")
    if model.name.endswith((".tar.gz", ".tgz")):
        archive = _store(assets, _chunks(model))
    else:
        archive = _store(assets, _pack([(model.name, model)]))
    return _record(folder, assets, "model", archive, Path(descriptor), asset_name)


def _check_dockerfile(path: Path) -> None:
    if not path.is_file():
        raise AssetMissing(
            path, f"package {path.parent.name}", f"write `FROM {BASE_IMAGE}` and `COPY src /{CODE_ROOT}` into it"
        )
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        instruction = words[0].upper()
        base = instruction == "FROM" and words[1:2] and words[1].split(":")[0] == BASE_IMAGE
        copy = instruction == "COPY" and [word.strip("/.") for word in words[1:]] == ["src", CODE_ROOT]
        if not (base or copy):
            raise NeedsContainerBuild(path, number, line.strip())


def _check_descriptor(path: Path, kind: str) -> None:
    document = read_document(path)
    if not isinstance(document.get(kind), dict):
        raise DocumentInvalid(path, kind, "is missing: this asset needs a descriptor of that kind")


def _tree(source: Path) -> list[tuple[str, Path]]:
    found = [(CODE_ROOT, source)]
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.suffix != ".pyc" and not any(part in _LEFT_OUT for part in relative.parts):
            found.append((f"{CODE_ROOT}/{relative.as_posix()}", path))
    return found


def _pack(entries: list[tuple[str, Path]]) -> Iterator[bytes]:
    """A .tar.gz without times, owners or the packer's umask: only names, content and who may execute."""
    raw = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_COMPRESS_LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in entries:
            info = archive.gettarinfo(path, arcname=name)
            if info is None or not (info.isreg() or info.isdir() or info.issym()):
                raise DocumentInvalid(path, "", "is neither a file, a folder nor a link: it can't go into an archive")
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "root", "root"
            info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
            if info.isreg():
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
            yield raw.getvalue()
            raw.seek(0)
            raw.truncate()
    yield raw.getvalue()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            yield chunk


def _store(assets: Path, content: Iterator[bytes], suffix: str = ".tar.gz") -> Path:
    """Writes under the content's own digest; complete or not at all."""
    assets.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    part = assets / f".part-{os.getpid()}"
    try:
        with part.open("wb") as out:
            for chunk in content:
                digest.update(chunk)
                out.write(chunk)
        target = assets / f"{digest.hexdigest()}{suffix}"
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _record(
    folder: Path, assets: Path, kind: str, archive: Path, descriptor: Path, asset_name: str | None
) -> BuiltAsset:
    stored_descriptor = assets / f"{hashlib.sha256(descriptor.read_bytes()).hexdigest()}.json"
    shutil.copyfile(descriptor, stored_descriptor)
    path = folder / "package.json"
    document = read_document(path)
    package = document.get("nodePackage")
    if not isinstance(package, dict):
        raise DocumentInvalid(path, "nodePackage", "must be an object")
    asset = _find_asset(path, package, kind, asset_name)
    implementation = next(item for item in asset["implementations"] if item.get("type") == kind)
    old = {implementation.get("assetUri"), implementation.get("descriptorUri")}
    implementation["assetUri"], implementation["descriptorUri"] = archive.name, stored_descriptor.name
    path.write_text(json.dumps(document, indent=4) + "\n")
    for name in old - {archive.name, stored_descriptor.name}:
        # As panorama-cli does: what this package no longer names goes, unless another package names it too.
        if isinstance(name, str) and name and Path(name).name == name and not _named_elsewhere(folder, name):
            (assets / name).unlink(missing_ok=True)
    made = Package(folder=folder, account="", name=folder.name)
    return BuiltAsset(
        name=asset["name"], archive=archive, descriptor=stored_descriptor, patch_version=made.patch_version
    )


def _find_asset(path: Path, package: dict[str, Any], kind: str, name: str | None) -> dict[str, Any]:
    assets = package.setdefault("assets", [])
    if not isinstance(assets, list) or not all(isinstance(asset, dict) for asset in assets):
        raise DocumentInvalid(path, "nodePackage.assets", "must be a list of objects")
    fitting = [
        asset
        for asset in assets
        if (name is None or asset.get("name") == name)
        and any(isinstance(item, dict) and item.get("type") == kind for item in asset.get("implementations") or [])
    ]
    if len(fitting) == 1:
        found: dict[str, Any] = fitting[0]
        return found
    if fitting:
        raise DocumentInvalid(path, "nodePackage.assets", f"has several {kind} assets: say which by its name")
    if name is None:
        raise DocumentInvalid(path, "nodePackage.assets", f"has no {kind} asset: give the new one a name")
    made: dict[str, Any] = {"name": name, "implementations": [{"type": kind}]}
    assets.append(made)
    return made


def _named_elsewhere(folder: Path, name: str) -> bool:
    return any(other.parent != folder and name in other.read_text() for other in folder.parent.glob("*/package.json"))
