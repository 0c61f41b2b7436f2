"""Puts the API model where the AWS CLI and boto3 look for service models.

They no longer carry Panorama, but read further models from `~/.aws/models` and from each folder in AWS_DATA_PATH.
Writes files; touches no network and no AWS configuration.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from belvedere.awsmodel.errors import InstallFailed
from belvedere.awsmodel.model import API_VERSION, SERVICE, model_folder

FILES = ("service-2.json", "paginators-1.json", "endpoint-rule-set-1.json")


def default_folder() -> Path:
    """`~/.aws/models`: read by the AWS tools without any setting."""
    return Path.home() / ".aws" / "models"


def install(into: Path | None = None) -> Path:
    """Writes the model below `into` (default: default_folder()); returns the folder. A file is replaced whole or not.

    Raises InstallFailed where the folder cannot be written.
    """
    target = (into or default_folder()) / SERVICE / API_VERSION
    source = model_folder() / SERVICE / API_VERSION
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            _replace(target / name, (source / name).read_bytes())
    except OSError as error:
        raise InstallFailed(
            f"cannot write the API model to {target}: {error.strerror}; choose a folder with --into"
        ) from error
    return target


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
