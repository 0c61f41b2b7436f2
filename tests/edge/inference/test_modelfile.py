from __future__ import annotations

from pathlib import Path

import pytest

from edge.inference.errors import ModelInvalid, ModelUnsupported
from edge.inference.modelfile import find
from tests.support.models import tiny_onnx


def test_what_appliances_run_is_found_and_what_must_be_converted_first_is_named(tmp_path: Path) -> None:
    asset = tmp_path / "asset"
    assert find(tiny_onnx(asset), tmp_path / "w1").path.suffix == ".onnx"
    asset.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ModelUnsupported, match=r"Keras model, which is converted when its package is registered"):
        find(asset, tmp_path / "w2")
    asset.write_bytes(b"")
    with pytest.raises(ModelInvalid, match="empty"):
        find(asset, tmp_path / "w3")
