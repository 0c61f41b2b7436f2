"""Making the assets of a package and writing their names into its package.json, as panorama-cli does.

Knows no container engine: a code package without one is "bare", only `panorama/…`, and runs on the appliance's own
base.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from belvedere.appdir.archive import CODE_ROOT, code_tree, store_copy, store_tree
from belvedere.appdir.dockerfile import BASE_IMAGE, needs_engine
from belvedere.appdir.errors import AssetMissing, DocumentInvalid, NeedsContainerBuild
from belvedere.appdir.folder import Package, read_document

__all__ = ["BASE_IMAGE", "BuiltAsset", "add_model_asset", "build_container_asset", "record_asset"]


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

    new: bool = False
    """package.json did not have the asset before."""


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
    dockerfile = dockerfile_of(folder)
    if more := needs_engine(dockerfile.read_text()):
        raise NeedsContainerBuild(dockerfile, more.line, more.text)
    descriptor = container_descriptor(folder)
    archive = store_tree(assets, code_tree(source))
    return record_asset(folder, assets, "container", archive, descriptor, asset_name)


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
        archive = store_copy(assets, model)
    else:
        archive = store_tree(assets, [(model.name, model)])
    return record_asset(folder, assets, "model", archive, Path(descriptor), asset_name)


def dockerfile_of(folder: Path) -> Path:
    """The package's Dockerfile. Raises AssetMissing."""
    path = folder / "Dockerfile"
    if not path.is_file():
        raise AssetMissing(
            path, f"package {folder.name}", f"write `FROM {BASE_IMAGE}` and `COPY src /{CODE_ROOT}` into it"
        )
    return path


def container_descriptor(folder: Path) -> Path:
    """The code package's descriptor.json. Raises DocumentInvalid where it is none."""
    path = folder / "descriptor.json"
    _check_descriptor(path, "runtimeDescriptor")
    return path


def record_asset(
    folder: Path, assets: Path, kind: str, archive: Path, descriptor: Path, asset_name: str | None
) -> BuiltAsset:
    """Names a stored archive in package.json, with its descriptor (stored here), and deletes what that asset named
    before. What else the implementation says, such as its requirements, stays.

    The container asset goes last, a model first, as panorama-cli puts them. Raises DocumentInvalid.
    """
    stored_descriptor = assets / f"{hashlib.sha256(descriptor.read_bytes()).hexdigest()}.json"
    shutil.copyfile(descriptor, stored_descriptor)
    path = folder / "package.json"
    document = read_document(path)
    package = document.get("nodePackage")
    if not isinstance(package, dict):
        raise DocumentInvalid(path, "nodePackage", "must be an object")
    asset, new = _find_asset(path, package, kind, asset_name)
    implementation = next(item for item in asset["implementations"] if item.get("type") == kind)
    old = {implementation.get("assetUri"), implementation.get("descriptorUri")}
    implementation["assetUri"], implementation["descriptorUri"] = archive.name, stored_descriptor.name
    package["assets"].remove(asset)
    package["assets"].insert(len(package["assets"]) if kind == "container" else 0, asset)
    path.write_text(json.dumps(document, indent=4) + "\n")
    for name in old - {archive.name, stored_descriptor.name}:
        # As panorama-cli does: what this package no longer names goes, unless another package names it too.
        if isinstance(name, str) and name and Path(name).name == name and not _named_elsewhere(folder, name):
            (assets / name).unlink(missing_ok=True)
    made = Package(folder=folder, account="", name=folder.name)
    return BuiltAsset(asset["name"], archive, stored_descriptor, made.patch_version, new)


def _check_descriptor(path: Path, kind: str) -> None:
    document = read_document(path)
    if not isinstance(document.get(kind), dict):
        raise DocumentInvalid(path, kind, "is missing: this asset needs a descriptor of that kind")


def _find_asset(path: Path, package: dict[str, Any], kind: str, name: str | None) -> tuple[dict[str, Any], bool]:
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
        return fitting[0], False
    if fitting:
        raise DocumentInvalid(path, "nodePackage.assets", f"has several {kind} assets: say which by its name")
    if name is None:
        raise DocumentInvalid(path, "nodePackage.assets", f"has no {kind} asset: give the new one a name")
    if any(asset.get("name") == name for asset in assets):
        raise DocumentInvalid(path, "nodePackage.assets", f'has "{name}", which is no {kind}: choose another name')
    made: dict[str, Any] = {"name": name, "implementations": [{"type": kind}]}
    assets.append(made)
    return made, True


def _named_elsewhere(folder: Path, name: str) -> bool:
    return any(other.parent != folder and name in other.read_text() for other in folder.parent.glob("*/package.json"))
