"""ONNX stays what it is: checked that it loads, runs on what its descriptor says, and has operators that are defined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime

from .harness import Array, ConversionRefused, Input, Original, check_names, check_operators, main


class Onnx(Original):
    """An ONNX file."""

    keeps_file = True

    def __init__(self, path: Path, inputs: list[Input]) -> None:
        self._inputs = inputs
        try:
            onnx.checker.check_model(str(path))
            check_operators(path)
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except ConversionRefused:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common root but this one
            raise ConversionRefused(f"ONNX Runtime does not read it: {_line(error)}") from error
        check_names([item.name for item in inputs], [item.name for item in self._session.get_inputs()])

    def run(self, values: Sequence[Array]) -> list[Array]:
        feeds = {item.name: value for item, value in zip(self._inputs, values, strict=True)}
        try:
            return list(self._session.run(None, feeds))
        except Exception as error:  # as above
            raise ConversionRefused(f"the model does not take what its descriptor says: {_line(error)}") from error

    def export(self, path: Path) -> None:
        raise AssertionError("an ONNX model is not converted")


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


if __name__ == "__main__":
    main(lambda path, kind, inputs: Onnx(path, inputs))
