"""Finding what an application folder holds, as panorama-cli finds it: the first folder of `graphs/`, every folder of
`packages/` named `<account>-<NAME>-<version>`. Reads; writes only when asked for a copy."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from belvedere import jsontext
from belvedere.appdir.errors import AssetMissing, DocumentInvalid, NotAnAppFolder, PackageNotFound

DEFAULT_VERSION = "1.0"
"""What panorama-cli takes where package.json names no version."""

_NOT_COPIED = shutil.ignore_patterns(".git", "__pycache__", "*.pyc", ".DS_Store")


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises DocumentInvalid."""
    try:
        value = jsontext.loads(path.read_bytes())
    except FileNotFoundError:
        raise DocumentInvalid(path, "", "is not there") from None
    except (ValueError, RecursionError) as error:
        raise DocumentInvalid(path, "", f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DocumentInvalid(path, "", "must be a JSON object")
    return value


@dataclass(frozen=True)
class AssetFile:
    """A file that a registered package version consists of."""

    uri: str
    """Name relative to the package's binaries prefix: `<sha256>.tar.gz`, `<sha256>.json`."""

    path: Path
    """Where it lies."""


@dataclass(frozen=True)
class Package:
    """One folder of `packages/`."""

    folder: Path
    account: str
    """As the folder's name says it; what the registered package belongs to is the caller's account."""

    name: str

    @property
    def document_path(self) -> Path:
        return self.folder / "package.json"

    def document(self) -> dict[str, Any]:
        """The content of `nodePackage`, read now. Raises DocumentInvalid."""
        package = read_document(self.document_path).get("nodePackage")
        if not isinstance(package, dict):
            raise DocumentInvalid(self.document_path, "nodePackage", "must be an object")
        return package

    @property
    def version(self) -> str:
        version = self.document().get("version") or DEFAULT_VERSION
        if not isinstance(version, str):
            raise DocumentInvalid(self.document_path, "nodePackage.version", "must be text")
        return version

    @property
    def patch_version(self) -> str:
        """SHA-256 (64 hex digits) of package.json's bytes: the version that AWS's tools register."""
        try:
            return hashlib.sha256(self.document_path.read_bytes()).hexdigest()
        except FileNotFoundError:
            raise DocumentInvalid(self.document_path, "", "is not there") from None

    def files(self, assets: Path) -> tuple[AssetFile, ...]:
        """What to upload besides package.json: the assets and descriptors of all implementations that are not `system`.

        Raises AssetMissing where one is named and not in `assets`.
        """
        found: dict[str, AssetFile] = {}
        for number, asset in enumerate(_objects(self.document_path, self.document(), "assets", "nodePackage")):
            for implementation in _objects(
                self.document_path, asset, "implementations", f"nodePackage.assets[{number}]"
            ):
                if implementation.get("type") == "system":
                    continue
                for uri in (implementation.get("assetUri"), implementation.get("descriptorUri")):
                    if not isinstance(uri, str) or not uri:
                        continue
                    path = assets / uri
                    if not path.is_file():
                        raise AssetMissing(path, f"package {self.name}", "build the container or add the model first")
                    found[uri] = AssetFile(uri, path)
        return tuple(found.values())


@dataclass(frozen=True)
class AppFolder:
    """An application folder."""

    root: Path
    graph_path: Path

    @classmethod
    def load(cls, path: str | Path, into: str | Path | None = None) -> Self:
        """The folder at `path`; with `into`, a fresh copy of it there (assets already built there are kept), so that
        packaging leaves the original as it is.

        Raises NotAnAppFolder.
        """
        root = Path(path)
        _check_layout(root)
        if into is not None:
            target = Path(into)
            for name in ("graphs", "packages"):
                if (target / name).exists():
                    shutil.rmtree(target / name)
            shutil.copytree(root, target, symlinks=True, ignore=_NOT_COPIED, dirs_exist_ok=True)
            root = target
        (root / "assets").mkdir(exist_ok=True)
        return cls(root=root, graph_path=_check_layout(root))

    @property
    def assets(self) -> Path:
        return self.root / "assets"

    @property
    def name(self) -> str:
        """The application's name: that of the graph's folder."""
        return self.graph_path.parent.name

    def graph(self) -> dict[str, Any]:
        """The whole graph document. Raises DocumentInvalid."""
        return read_document(self.graph_path)

    def packages(self) -> tuple[Package, ...]:
        """All packages, by folder name.

        Folders that are not named `<account>-<NAME>-<version>` are none, as for panorama-cli.
        """
        found = []
        for folder in sorted((self.root / "packages").iterdir()):
            parts = folder.name.split("-")
            if folder.is_dir() and len(parts) >= 3:
                found.append(Package(folder=folder, account=parts[0], name="-".join(parts[1:-1])))
        return tuple(found)

    def package(self, name: str) -> Package:
        """The package of that name. Raises PackageNotFound."""
        known = self.packages()
        for package in known:
            if package.name == name:
                return package
        raise PackageNotFound(name, tuple(package.name for package in known))


def _check_layout(root: Path) -> Path:
    for name in ("graphs", "packages"):
        if not (root / name).is_dir():
            raise NotAnAppFolder(root, f"it has no folder {name}/")
    graphs = sorted(folder for folder in (root / "graphs").iterdir() if folder.is_dir())
    if not graphs:
        raise NotAnAppFolder(root, "graphs/ is empty")
    graph = graphs[0] / "graph.json"
    if not graph.is_file():
        raise NotAnAppFolder(root, f"{graph.relative_to(root)} is not there")
    return graph


def _objects(path: Path, owner: dict[str, Any], member: str, place: str) -> list[dict[str, Any]]:
    values = owner.get(member, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DocumentInvalid(path, f"{place}.{member}", "must be a list of objects")
    return values
