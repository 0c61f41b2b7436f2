"""The model in an asset, if it is one that an appliance can run. Must not know any backend."""

from __future__ import annotations

import shutil
from pathlib import Path

from belvedere import modelfile
from belvedere.modelfile import FOR_APPLIANCES, ModelFile, ModelFileInvalid
from edge.inference.errors import ModelInvalid, ModelUnsupported


def find(asset: Path, work: Path) -> ModelFile:
    """The model in `asset`: itself, or the one in an archive, unpacked into the new folder `work`.

    Raises ModelInvalid where there is none or more than one, ModelUnsupported where it must be converted first.
    """
    try:
        model = modelfile.find(asset, work)
    except ModelFileInvalid as error:
        raise ModelInvalid(str(error)) from error
    if model.kind not in FOR_APPLIANCES:
        raise ModelUnsupported(
            f"this is a {model.kind} model, which is converted when its package is registered (docs/models.md); register "
            "it again where conversion is set up, or convert it to ONNX yourself"
        )
    return model


def discard(work: Path) -> None:
    """Remove what `find` made."""
    shutil.rmtree(work, ignore_errors=True)
