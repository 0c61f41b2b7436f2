"""An application folder as it lies there, resolved to the graph that an appliance runs: nothing is registered, nothing in
the folder is changed.

    work = FolderWork(AppFolder.load("people-counter"), built=Path("/tmp/x"), models={"PERSON_DETECTOR": file})
    found = work.resolve(Choices(cameras={"front_camera": ("pedestrians",)}))
    found.graph, found.files[digest], found.cameras[camera_id]

Every problem of the folder is found before it raises: of the graph, of the overrides, of each package.json, descriptor
and source file. What is packed once is packed again only when it has changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from belvedere.appdir.archive import code_tree, sha256_of, store_tree
from belvedere.appdir.dockerfile import needs_engine
from belvedere.appdir.errors import AppFolderError, DocumentInvalid, FolderInvalid, FolderProblem
from belvedere.appdir.folder import AppFolder, Package, read_document
from belvedere.appdir.overrides import CameraNode, overrides_document, with_open_ports
from belvedere.graph import (
    GraphError,
    PackageQuery,
    PackageRef,
    RegisteredAsset,
    Release,
    ResolvedGraph,
    camera_document,
    package_queries,
    parse_descriptor,
    parse_package,
    read_application,
    resolve_draft,
)
from belvedere.graph.resolved import BUILT_IN_OWNER

ABSTRACT = f"{BUILT_IN_OWNER}::abstract_rtsp_media_source."
CAMERA_VERSION = "1.0"
DESCRIPTOR = "descriptor.json"
FILE_KINDS = {"container": "business_logic", "model": "ml_model"}
"""Kinds of assets that are files, and the interfaces that want one."""


@dataclass(frozen=True)
class Choices:
    """What one run decides."""

    cameras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Node of the graph → names of the cameras in its place."""
    values: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Parameter → (type, value as text)."""
    overrides: Path | None = None
    """A document to begin with."""
    open_ports: bool = True
    """Open every port of the graph's networkRoutingRules, as overrides that repeat them do."""


@dataclass(frozen=True)
class ResolvedFolder:
    """What an appliance needs."""

    graph: ResolvedGraph
    files: Mapping[str, Path]
    """Digest → file, for every asset of the graph."""
    cameras: Mapping[str, str]
    """camera_id → the name of the camera, or of the node where the graph itself names one."""


class FolderWork:
    """One folder, resolved again and again."""

    def __init__(self, app: AppFolder, built: Path, models: Mapping[str, Path] | None = None) -> None:
        """`built`: where new archives go. `models`: package → model file, instead of what is in `assets`."""
        self.app = app
        self._built = built
        self._models = dict(models or {})
        self._packed: dict[Path, tuple[object, Path, str]] = {}
        self._found: list[FolderProblem] = []

    def camera_nodes(self) -> tuple[str, ...]:
        """Nodes of the graph that are cameras, in its order: the abstract ones, and those of packages that are not in the
        folder. Empty where the graph can't be read."""
        try:
            document = self.app.graph().get("nodeGraph")
        except AppFolderError:
            return ()
        nodes = document.get("nodes", []) if isinstance(document, dict) else []
        own = {f"{package.account}::{package.name}." for package in self.app.packages()}
        return tuple(
            str(node.get("name"))
            for node in nodes
            if isinstance(node, dict) and _is_camera(str(node.get("interface", "")), own)
        )

    def sources(self) -> tuple[Path, ...]:
        """The folders whose change changes the application: code, and the documents."""
        return (self.app.graph_path.parent, *(package.folder for package in self.app.packages()))

    def code_folders(self) -> tuple[Path, ...]:
        """The folders with the code itself."""
        folders = (package.folder / "src" for package in self.app.packages())
        return tuple(folder for folder in folders if folder.is_dir())

    def resolve(self, choices: Choices) -> ResolvedFolder:
        """The graph and its files. Raises FolderInvalid with every problem."""
        self._found = []
        releases: dict[tuple[str, str, str], Release] = {}
        files: dict[str, Path] = {}
        for name in sorted(self._models.keys() - {package.name for package in self.app.packages()}):
            self._say(self.app.root / "packages", "", f'no package "{name}" for the model {self._models[name]}')
        for package in self.app.packages():
            self._package(package, releases, files)
        graph = self._graph(choices, releases)
        if self._found or graph is None:
            raise FolderInvalid(self._found)
        named = {name for names in choices.cameras.values() for name in names}
        cameras = {
            node.camera_id: node.package.name if node.package.name in named else node.name for node in graph.cameras
        }
        return ResolvedFolder(graph, {asset.digest: files[asset.digest] for asset in graph.assets}, cameras)

    # -- the graph --------------------------------------------------------------------------------------------------

    def _graph(self, choices: Choices, known: Mapping[tuple[str, str, str], Release]) -> ResolvedGraph | None:
        path = self.app.graph_path
        account = next((package.account for package in self.app.packages()), "")
        try:
            text = path.read_text()
            overrides = json.dumps(self._overrides(choices, account))
            draft = read_application(text, overrides)
            releases = {
                query: release
                for query in package_queries(draft.manifest, draft.overrides)
                if (release := self._release(query, known, choices)) is not None
            }
            return resolve_draft(draft, releases, account)
        except GraphError as error:
            for problem in error.problems:
                mine = not problem.place.startswith("overrides.")
                where = path if mine else choices.overrides or Path("the command line")
                self._say(where, problem.place if mine else problem.place.removeprefix("overrides."), problem.message)
        except AppFolderError as error:
            self._say(path, "", str(error).removeprefix(f"{path}: "))
        return None

    def _overrides(self, choices: Choices, account: str) -> dict[str, Any]:
        document = self.app.graph()
        inner = document.get("nodeGraph")
        inner = inner if isinstance(inner, dict) else {}
        nodes = [node for node in inner.get("nodes") or () if isinstance(node, dict)]
        overridable = {node.get("name") for node in nodes if node.get("overridable") is True}
        cameras = {
            node: [CameraNode(account, name, CAMERA_VERSION, name) for name in names]
            for node, names in choices.cameras.items()
            if node in overridable
        }
        start = read_document(choices.overrides) if choices.overrides else None
        made = overrides_document(cameras, choices.values, start, [str(node.get("name")) for node in nodes])
        return with_open_ports(made, document) if choices.open_ports else made

    def _release(
        self, query: PackageQuery, known: Mapping[tuple[str, str, str], Release], choices: Choices
    ) -> Release | None:
        found = known.get((query.owner, query.name, query.version))
        if found is not None:
            return found
        named = {name for names in choices.cameras.values() for name in names}
        if query.name in named:
            return _camera(query, query.name)
        # A camera that the graph names itself: the chosen one plays its part.
        for node in self.app.graph()["nodeGraph"]["nodes"]:
            interface = str(node.get("interface", "")) if isinstance(node, dict) else ""
            if interface.startswith(f"{query.owner}::{query.name}.") and node.get("name") in choices.cameras:
                return _camera(query, interface.partition(".")[2])
        return None

    # -- the packages -----------------------------------------------------------------------------------------------

    def _package(self, package: Package, releases: dict[tuple[str, str, str], Release], files: dict[str, Path]) -> None:
        path = package.document_path
        try:
            document = package.document()
            version = package.version
        except DocumentInvalid as error:
            self._say(error.path, error.place, str(error).split(": ", 2 if error.place else 1)[-1])
            return
        own = self._own_files(package)
        for kind, category in FILE_KINDS.items():
            if kind in own:
                _complete(document, kind, category)
        parsed = None
        try:
            parsed = parse_package(json.dumps({"nodePackage": document}))
        except GraphError as error:
            for problem in error.problems:
                self._say(path, f"nodePackage.{problem.place}" if problem.place else "", problem.message)
        assets = []
        for asset, implementation in _implementations(document):
            kind = str(implementation.get("type"))
            if kind not in FILE_KINDS:
                assets.append(RegisteredAsset(asset, kind, "", 0))
                continue
            stored = self._stored(package, asset, kind, implementation, own.get(kind))
            # What can't be had is a problem already: the graph need not miss it once more.
            assets.append(stored[0] if stored is not None else _absent(package, asset, kind))
            if stored is not None:
                files[stored[0].digest] = stored[1]
        if parsed is not None:
            patch = sha256_of(path)
            ref = PackageRef(package.account, package.name, version, patch)
            releases[package.account, package.name, version] = Release(ref, parsed, tuple(assets))

    def _own_files(self, package: Package) -> dict[str, Callable[[], Path | None]]:
        """How to make the package's archives out of what lies in the folder; those that are only in `assets` not."""
        found: dict[str, Callable[[], Path | None]] = {}
        dockerfile = package.folder / "Dockerfile"
        if dockerfile.is_file() and needs_engine(dockerfile.read_text()) is None:
            found["container"] = lambda: self._pack_code(package)
        model = self._models.get(package.name)
        if model is not None:
            found["model"] = lambda: self._pack_model(model)
        return found

    def _stored(
        self,
        package: Package,
        asset: str,
        kind: str,
        implementation: dict[str, Any],
        make: Callable[[], Path | None] | None,
    ) -> tuple[RegisteredAsset, Path] | None:
        assets = self.app.assets
        if make is not None:
            archive, descriptor_path = make(), package.folder / DESCRIPTOR
        else:
            archive = assets / str(implementation.get("assetUri") or "-")
            descriptor_path = assets / str(implementation.get("descriptorUri") or "-")
            if not archive.is_file():
                self._say(package.document_path, f"asset {asset}", f"{_REMEDY[kind]} ({archive} is not there)")
                return None
            if not descriptor_path.is_file():
                descriptor_path = package.folder / DESCRIPTOR
        descriptor = None
        try:
            descriptor = parse_descriptor(descriptor_path.read_bytes())
        except FileNotFoundError:
            self._say(descriptor_path, "", f"is not there: it says how asset {asset} is to be used")
        except GraphError as error:
            for problem in error.problems:
                self._say(descriptor_path, problem.place, problem.message)
        if archive is None or descriptor is None:
            return None
        digest = f"sha256:{self._digest(archive)}"
        return RegisteredAsset(asset, kind, digest, archive.stat().st_size, descriptor), archive

    def _pack_code(self, package: Package) -> Path | None:
        source = package.folder / "src"
        if not source.is_dir():
            self._say(source, "", f"is not there: the code of package {package.name} belongs into it")
            return None
        broken = [problem for path in sorted(source.rglob("*.py")) if (problem := syntax_problem(path)) is not None]
        self._found += broken
        return None if broken else store_tree(self._built, code_tree(source))

    def _pack_model(self, model: Path) -> Path | None:
        if not model.is_file():
            self._say(model, "", "is not there")
            return None
        if model.name.endswith((".tar.gz", ".tgz")):
            return model
        stamp, known = _stamp(model), self._packed.get(model)
        if known is None or known[0] != stamp:
            archive = store_tree(self._built, [(model.name, model)])
            known = self._packed[model] = (stamp, archive, sha256_of(archive))
        return known[1]

    def _digest(self, archive: Path) -> str:
        if archive.parent == self._built:
            return archive.name.partition(".")[0]
        stamp, known = _stamp(archive), self._packed.get(archive)
        if known is None or known[0] != stamp:
            known = self._packed[archive] = (stamp, archive, sha256_of(archive))
        return known[2]

    def _say(self, path: Path, place: str, message: str) -> None:
        problem = FolderProblem(path, place, message)
        if problem not in self._found:
            self._found.append(problem)


_REMEDY = {
    "container": "build it first with `belvedere app build`",
    "model": "add the model first with `belvedere app add-model`, or name the file with --model PACKAGE=FILE",
}


def syntax_problem(path: Path) -> FolderProblem | None:
    """What Python would say to a source file; None where it can be read."""
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        text = (error.text or "").strip()
        return FolderProblem(path, f"line {error.lineno}", f"{error.msg}{f': {text}' if text else ''}")
    except ValueError as error:
        return FolderProblem(path, "", str(error))
    return None


def _is_camera(interface: str, own: set[str]) -> bool:
    if interface.startswith(ABSTRACT):
        return True
    owner, colons, _ = interface.partition("::")
    return bool(colons) and owner != BUILT_IN_OWNER and not interface.startswith(tuple(own))


def _camera(query: PackageQuery, interface: str) -> Release:
    text = camera_document(query.name, query.version, "", interface=interface, stream_url="rtsp://camera")
    return Release(PackageRef(query.owner, query.name, query.version, "0" * 64), parse_package(text))


def _implementations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    assets = [asset for asset in document.get("assets") or () if isinstance(asset, dict)]
    return [
        (str(asset.get("name")), item)
        for asset in assets
        for item in asset.get("implementations") or ()
        if isinstance(item, dict)
    ]


def _complete(document: dict[str, Any], kind: str, category: str) -> None:
    """Adds the assets that interfaces ask for and only a build would write down."""
    assets, interfaces = document.setdefault("assets", []), document.get("interfaces")
    if not isinstance(assets, list) or not isinstance(interfaces, list):
        return
    named = {asset.get("name") for asset in assets if isinstance(asset, dict)}
    for interface in interfaces:
        wanted = (
            interface.get("asset") if isinstance(interface, dict) and interface.get("category") == category else None
        )
        if isinstance(wanted, str) and wanted and wanted not in named:
            assets.append({"name": wanted, "implementations": [{"type": kind, "assetUri": f"{wanted}.tar.gz"}]})


def _absent(package: Package, asset: str, kind: str) -> RegisteredAsset:
    descriptor = None
    with contextlib.suppress(OSError, GraphError):
        descriptor = parse_descriptor((package.folder / DESCRIPTOR).read_bytes())
    return RegisteredAsset(asset, kind, f"sha256:{'0' * 64}", 0, descriptor)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
