"""What computes a model: one module a backend, all behind `base.Backend`, all held to one contract suite."""

from __future__ import annotations

import importlib
from pathlib import Path

from edge.inference.backends.base import Backend
from edge.inference.settings import Settings

BACKENDS = {"openvino": "OpenVinoBackend"}


def create(settings: Settings, cache: Path) -> Backend:
    """The backend that `settings` name; only its own library is imported. `cache`: a folder for what it converts.

    Raises ValueError for a name that is none.
    """
    class_name = BACKENDS.get(settings.backend)
    if class_name is None:
        raise ValueError(
            f"there is no inference backend `{settings.backend}`; there are: {', '.join(sorted(BACKENDS))}"
        )
    module = importlib.import_module(f"edge.inference.backends.{settings.backend}")
    backend: Backend = getattr(module, class_name)(settings, cache)
    return backend
