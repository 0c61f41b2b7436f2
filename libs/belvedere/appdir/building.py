"""Building a code package's container asset: with an engine where that is needed or asked for, bare otherwise.

    built = build_code_asset(folder, folder.package("CODE"), say=print)
    built.how                                       # "buildah", "docker" or "bare"

What panorama-cli's build-container does, without Docker being the only way: the same archive of the container's root
filesystem, the same changes of package.json and graph.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from belvedere.appdir.archive import code_tree, sha256_of, store_compressed, store_tree
from belvedere.appdir.dockerfile import base_reference, needs_engine, with_base
from belvedere.appdir.engines import IMAGE_PREFIX, Buildah, Docker, Engine, Say
from belvedere.appdir.errors import AssetMissing, BaseInvalid, DocumentInvalid, EngineMissing, NeedsContainerBuild
from belvedere.appdir.folder import AppFolder, Package, read_document
from belvedere.appdir.packaging import BuiltAsset, add_model_asset, container_descriptor, dockerfile_of, record_asset

AUTO = "auto"
BARE = "bare"
ENGINES: dict[str, Callable[[], Engine]] = {"docker": Docker, "buildah": Buildah}
"""In the order in which they are tried."""

_IMAGE = re.compile(r"[A-Za-z0-9][\w.:@/-]*")
_ARCHIVE = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")


@dataclass(frozen=True)
class CodeBuild:
    """A built code package."""

    asset: BuiltAsset
    how: str
    """`bare`, or the engine's name."""
    node: str | None
    """The graph node that was added for it; None where it had an interface before."""


def build_code_asset(
    app: AppFolder,
    package: Package,
    *,
    say: Say,
    engine: str = AUTO,
    base: str | None = None,
    asset_name: str | None = None,
) -> CodeBuild:
    """Builds and records the container asset of one package.

    `engine`: `docker`, `buildah`, `bare`, or `auto`: an engine only where one is needed, or gives something that a bare
    archive does not: another base, or AWS's base image that is already here. `base`: what stands for AWS's base image:
    an image's name, a root filesystem as a tar file or folder. `asset_name`: by default the container asset that
    package.json has, or the one that an interface asks for. `say` gets the engine's output.

    Raises NeedsContainerBuild, EngineMissing, EngineFailed, BaseInvalid, AssetMissing, DocumentInvalid.
    """
    dockerfile = dockerfile_of(package.folder)
    descriptor = container_descriptor(package.folder)
    name = asset_name or _asset_name(package, "container", "business_logic")
    text = dockerfile.read_text()
    chosen = _choose(engine, dockerfile, text, base, say)
    if chosen is None:
        source = package.folder / "src"
        if not source.is_dir():
            raise AssetMissing(source, f"package {package.name}", "put the application's code there")
        archive = store_tree(app.assets, code_tree(source))
    else:
        archive = _build(chosen, app, package, text, base, say)
    asset = record_asset(package.folder, app.assets, "container", archive, descriptor, name)
    asset, node = _connected(app, package, asset, "business_logic", f"{asset.name}_node")
    return CodeBuild(asset, chosen.name if chosen else BARE, node)


def add_model(
    app: AppFolder,
    package: Package,
    model_file: Path,
    descriptor: Path | None = None,
    asset_name: str | None = None,
) -> tuple[BuiltAsset, str | None]:
    """Packs a model file as the package's model asset, as panorama-cli's add-raw-model does. `descriptor`: the package's
    descriptor.json unless named. The asset, and the graph node that was added for it, if one was.

    Raises AssetMissing, DocumentInvalid.
    """
    name = asset_name or _asset_name(package, "model", "ml_model")
    described = descriptor or package.folder / "descriptor.json"
    asset = add_model_asset(package.folder, app.assets, model_file, described, asset_name=name)
    return _connected(app, package, asset, "ml_model", asset.name)


def code_packages(app: AppFolder) -> tuple[Package, ...]:
    """The packages that have a Dockerfile."""
    return tuple(package for package in app.packages() if (package.folder / "Dockerfile").is_file())


def _choose(wanted: str, dockerfile: Path, text: str, base: str | None, say: Say) -> Engine | None:
    """None: bare."""
    more = needs_engine(text)
    if wanted == BARE:
        if more is not None:
            raise NeedsContainerBuild(dockerfile, more.line, more.text)
        return None
    if wanted != AUTO:
        engine = ENGINES[wanted]()
        if problem := engine.problem():
            raise EngineMissing(wanted, problem)
        return engine
    reference = base_reference(text)
    problems = []
    for make in ENGINES.values():
        engine = make()
        if problem := engine.problem():
            problems.append(problem)
        elif more is not None or base is not None or (reference is not None and engine.has(reference)):
            return engine
    if more is not None:
        raise NeedsContainerBuild(dockerfile, more.line, more.text, problems)
    if base is not None:
        say(f"{base} is not used: {', and '.join(problems)}. This Dockerfile needs none")
    return None


def _build(engine: Engine, app: AppFolder, package: Package, text: str, base: str | None, say: Say) -> Path:
    if base is not None:
        if base_reference(text) is None:
            say(f"{base} is not used: the Dockerfile does not begin with AWS's base image")
        else:
            text = with_base(text, _base_image(engine, base, say))
    with tempfile.TemporaryDirectory(prefix="belvedere-build-") as folder:
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text(text)
        image = engine.build(package.folder, dockerfile, package.name.lower(), say)
    with engine.exported(image) as tar:
        return store_compressed(app.assets, tar)


def _base_image(engine: Engine, base: str, say: Say) -> str:
    """The name of an image in the engine: a root filesystem becomes one, once."""
    path = Path(base)
    if path.is_dir():
        fingerprint = _fingerprint(path)
    elif path.is_file():
        fingerprint = sha256_of(path)
    elif base.startswith((".", "/", "~")) or base.endswith(_ARCHIVE):
        raise BaseInvalid(base, "there is no such file")
    elif not _IMAGE.fullmatch(base):
        raise BaseInvalid(base, "no image can be named so")
    else:
        return base
    image = f"localhost/{IMAGE_PREFIX}/base:{fingerprint[:16]}"
    if not engine.has(image):
        say(f"making an image of {base}")
        engine.import_base(path.absolute(), image, say)
    return image


def _fingerprint(folder: Path) -> str:
    """Changes when something in the folder does, as far as names, sizes and times show it."""
    digest = hashlib.sha256()
    for where, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            status = (Path(where) / name).lstat()
            digest.update(f"{where}/{name}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _asset_name(package: Package, kind: str, category: str) -> str | None:
    """None where package.json has such an asset; else what to call it."""
    document = package.document()
    for asset in document.get("assets") or ():
        implementations = asset.get("implementations") if isinstance(asset, dict) else None
        for implementation in implementations or ():
            if isinstance(implementation, dict) and implementation.get("type") == kind:
                return None
    for interface in document.get("interfaces") or ():
        if isinstance(interface, dict) and interface.get("category") == category:
            name = interface.get("asset")
            if isinstance(name, str) and name:
                return name
    return package.name.lower().replace("-", "_")


def _connected(
    app: AppFolder, package: Package, asset: BuiltAsset, category: str, node: str
) -> tuple[BuiltAsset, str | None]:
    """A new asset that no interface names gets one, and a node in the graph, as panorama-cli makes them."""
    document = read_document(package.document_path)
    interfaces = document["nodePackage"].setdefault("interfaces", [])
    if not isinstance(interfaces, list):
        raise DocumentInvalid(package.document_path, "nodePackage.interfaces", "must be a list")
    named = any(isinstance(interface, dict) and interface.get("asset") == asset.name for interface in interfaces)
    if named or not asset.new:
        return asset, None
    graph = app.graph()
    nodes = graph.get("nodeGraph", {}).get("nodes")
    if not isinstance(nodes, list):
        raise DocumentInvalid(app.graph_path, "nodeGraph.nodes", "must be a list")
    interface = f"{asset.name}_interface"
    interfaces.append(
        {
            "name": interface,
            "category": category,
            "asset": asset.name,
            "inputs": [{"name": "video_in", "type": "media"}],
            "outputs": [{"name": "video_out", "type": "media"}],
        }
    )
    full = f"{package.account}::{package.name}.{interface}"
    nodes.append({"name": node, "interface": full, "overridable": False, "launch": "onAppStart"})
    package.document_path.write_text(json.dumps(document, indent=4) + "\n")
    app.graph_path.write_text(json.dumps(graph, indent=4) + "\n")
    # The interface is part of what the patch version is made of.
    return replace(asset, patch_version=package.patch_version), node
