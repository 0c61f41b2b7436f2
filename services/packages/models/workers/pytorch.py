"""TorchScript → ONNX, with PyTorch's own exporter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .harness import OPSET, Array, ConversionRefused, Input, Original, main, refuse_operators


class TorchScript(Original):
    """A scripted or traced module."""

    def __init__(self, path: Path, inputs: list[Input]) -> None:
        try:
            self._module = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError) as error:
            raise ConversionRefused(f"PyTorch does not read it: {_first_line(error)}") from error
        self._inputs = inputs
        self._example: tuple[torch.Tensor, ...] = ()

    def run(self, values: Sequence[Array]) -> list[Array]:
        self._example = tuple(torch.from_numpy(value) for value in values)
        with torch.no_grad():
            try:
                answer = self._module(*self._example)
            except (RuntimeError, TypeError) as error:
                raise ConversionRefused(
                    f"the model does not take what its descriptor says: {_first_line(error)}"
                ) from error
        return [tensor.detach().numpy() for tensor in _tensors(answer)]

    def export(self, path: Path) -> None:
        self._export(path, [item.shape for item in self._inputs])

    def export_for_batches(self, path: Path) -> bool:
        self._export(path, [(-1, *item.shape[1:]) for item in self._inputs])
        return True

    def _export(self, path: Path, shapes: Sequence[tuple[int, ...]]) -> None:
        _, unknown = torch.onnx.utils.unconvertible_ops(self._module, self._example, opset_version=OPSET)
        if unknown:
            raise refuse_operators(set(unknown))
        dynamic = {
            item.name: {place: f"{item.name}_{place}" for place, size in enumerate(shape) if size < 1}
            for item, shape in zip(self._inputs, shapes, strict=True)
        }
        try:
            torch.onnx.export(
                self._module,
                self._example,
                str(path),
                input_names=[item.name for item in self._inputs],
                dynamic_axes={name: axes for name, axes in dynamic.items() if axes},
                opset_version=OPSET,
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            raise ConversionRefused(f"PyTorch does not export it: {_first_line(error)}") from error


def _tensors(answer: object) -> list[torch.Tensor]:
    """Every tensor of an answer, in the order in which the exporter makes outputs of them."""
    if isinstance(answer, torch.Tensor):
        return [answer]
    if isinstance(answer, (tuple, list)):
        return [tensor for item in answer for tensor in _tensors(item)]
    if isinstance(answer, dict):
        return [tensor for item in answer.values() for tensor in _tensors(item)]
    raise ConversionRefused(f"the model answers with a {type(answer).__name__}, not with tensors; export one that does")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript's traceback comes first, what is wrong last.
    return (lines[-1] if lines else type(error).__name__)[:300]


if __name__ == "__main__":
    main(lambda path, kind, inputs: TorchScript(path, inputs))
