"""MXNet (symbol and parameters) → ONNX, with MXNet's own exporter."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import mxnet
import mxnet.onnx
import numpy as np

from .harness import Array, ConversionRefused, Input, Original, check_names, main, refuse_operators

HEADS = {
    "SoftmaxOutput": "softmax",
    "Softmax": "softmax",
    "LogisticRegressionOutput": "sigmoid",
    "LinearRegressionOutput": "_copy",
    "MAERegressionOutput": "_copy",
}
"""What a training head computes when it answers. The label it takes besides makes MXNet's exporter count its nodes wrong."""


class Symbol(Original):
    """A symbol and its parameters."""

    def __init__(self, path: Path, inputs: list[Input]) -> None:
        prefix = path.name.removesuffix("-symbol.json")
        self._inputs = inputs
        weights = next(file for file in path.parent.iterdir() if _is_weights(file, prefix))
        try:
            self._symbol = mxnet.sym.load_json(without_training_heads(path.read_text()))
            saved = mxnet.nd.load(str(weights))
        except (mxnet.MXNetError, ValueError) as error:
            raise ConversionRefused(f"MXNet does not read it: {str(error).splitlines()[0][:300]}") from error
        self._arguments = {name[4:]: value for name, value in saved.items() if name.startswith("arg:")}
        self._states = {name[4:]: value for name, value in saved.items() if name.startswith("aux:")}
        known = {**self._arguments, **self._states}
        free = [name for name in self._symbol.list_inputs() if name not in known]
        check_names([item.name for item in inputs], free)
        # The exporter goes through the inputs in the symbol's order.
        self._in_order = sorted(inputs, key=lambda item: free.index(item.name))

    def run(self, values: Sequence[Array]) -> list[Array]:
        shapes = {item.name: value.shape for item, value in zip(self._inputs, values, strict=True)}
        try:
            bound = self._symbol.simple_bind(mxnet.cpu(), grad_req="null", **shapes)
            bound.copy_params_from(self._arguments, self._states, allow_extra_params=True)
            feeds = {item.name: mxnet.nd.array(value) for item, value in zip(self._inputs, values, strict=True)}
            return [answer.asnumpy() for answer in bound.forward(is_train=False, **feeds)]
        except (mxnet.MXNetError, RuntimeError) as error:
            text = str(error).splitlines()[-1][:300]
            raise ConversionRefused(f"the model does not take what its descriptor says: {text}") from error

    def export(self, path: Path) -> None:
        dynamic = any(size < 1 for item in self._in_order for size in item.shape)
        shapes = [tuple(size if size > 0 else 1 for size in item.shape) for item in self._in_order]
        try:
            mxnet.onnx.export_model(
                self._symbol,
                {**self._arguments, **self._states},
                shapes,
                [np.dtype(item.dtype).type for item in self._in_order],
                str(path),
                dynamic=dynamic,
                dynamic_input_shapes=[
                    tuple(size if size > 0 else None for size in item.shape) for item in self._in_order
                ]
                if dynamic
                else None,
            )
        except (AttributeError, NotImplementedError, ValueError, TypeError, KeyError) as error:
            missing = re.search(r"op type (\S+)", str(error))
            if missing is not None:
                raise refuse_operators({missing.group(1)}) from error
            raise ConversionRefused(f"MXNet does not export it: {str(error)[:300]}") from error


def without_training_heads(text: str) -> str:
    """The symbol with every head that takes a label in the place of what it answers with."""
    symbol = json.loads(text)
    for node in symbol["nodes"]:
        if node["op"] in HEADS:
            attributes = node.get("attrs") or node.get("param") or {}
            node["op"], node["inputs"] = HEADS[node["op"]], node["inputs"][:1]
            axis = "1" if attributes.get("multi_output", "False") in ("True", "1") else "-1"
            node["attrs"] = {"axis": axis} if node["op"] == "softmax" else {}
            node.pop("param", None)
    return json.dumps(symbol)


def _is_weights(file: Path, prefix: str) -> bool:
    return file.name.startswith(prefix) and file.suffix == ".params"


if __name__ == "__main__":
    main(lambda path, kind, inputs: Symbol(path, inputs))
