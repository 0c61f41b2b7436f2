"""The SDK that every sandbox gets at /opt/belvedere/sdk, ahead of any other of its name: framelink and panoramasdk,
copied into the data folder so that a sandbox sees these two packages and nothing else of the installation, and so
that an upgrade does not change what a running application has mounted. Beside them the model of the Panorama API, which
today's boto3 has not any more (AWS_DATA_PATH, environment.py).
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.util
import shutil
import uuid
from pathlib import Path

from belvedere import awsmodel

PACKAGES = ("framelink", "panoramasdk")
AWS_MODELS = "aws-models"
"""Folder with models of AWS's APIs, in the form that boto3 reads."""
_HASH_LENGTH = 16


def install(folder: Path) -> Path:
    """Copies the packages to `folder`/<hash of their content> if they are not there, and removes other copies.
    Returns that folder (blocking: 0.2 s)."""
    api = awsmodel.model_folder() / "panorama"
    sources = {**{name: _source(name) for name in PACKAGES}, f"{AWS_MODELS}/panorama": api}
    target = folder / _digest(sources)
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    if not target.is_dir():
        part = folder / f".part-{uuid.uuid4().hex}"
        for name, source in sources.items():
            shutil.copytree(source, part / name, ignore=shutil.ignore_patterns("__pycache__"))
        # Compiled once: a sandbox can't write, and each start would compile again.
        compileall.compile_dir(part, quiet=1)
        part.rename(target)
    return target


def _source(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {name} is not installed")
    return Path(found.submodule_search_locations[0])


def _digest(sources: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, folder in sources.items():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{name}/{path.relative_to(folder)}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:_HASH_LENGTH]
