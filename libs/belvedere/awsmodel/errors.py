"""Errors of the API model.

ModelError
├── ModelInvalid     the JSON is no service model: an unknown shape, a missing field
└── InstallFailed    the model cannot be written where it was asked for
"""

from __future__ import annotations


class ModelError(Exception):
    """The API model cannot be used."""


class ModelInvalid(ModelError):
    """The JSON is no service model."""


class InstallFailed(ModelError):
    """The model files cannot be written."""
