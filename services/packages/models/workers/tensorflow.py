"""TensorFlow (frozen graph, SavedModel, Keras) and TFLite → ONNX, with tf2onnx."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import onnx
import tensorflow as tf
import tf2onnx

from .harness import OPSET, Array, ConversionRefused, Input, Original, check_names, main

UNREADABLE = (ValueError, TypeError, OSError, RuntimeError, NotImplementedError, tf.errors.OpError)
NOT_AN_OUTPUT = frozenset({"Const", "NoOp", "Assert", "Placeholder", "PlaceholderWithDefault"})


class Function(Original):
    """What can be called: a SavedModel's signature, or a Keras model."""

    def __init__(self, function: Callable[..., Any], inputs: list[Input], holder: object) -> None:
        specs = [
            tf.TensorSpec([size if size > 0 else None for size in item.shape], item.dtype, item.name) for item in inputs
        ]
        self._call, self._specs, self._holder = function, specs, holder
        self._function = tf.function(function, input_signature=specs)

    def run(self, values: Sequence[Array]) -> list[Array]:
        try:
            answers = self._function(*(tf.constant(value) for value in values))
        except UNREADABLE as error:
            raise ConversionRefused(f"the model does not take what its descriptor says: {_line(error)}") from error
        return [answer.numpy() for answer in tf.nest.flatten(answers)]

    def export(self, path: Path) -> None:
        self._export(path, self._function, self._specs)

    def export_for_batches(self, path: Path) -> bool:
        specs = [tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, spec.name) for spec in self._specs]
        self._export(path, tf.function(self._call, input_signature=specs), specs)
        return True

    @staticmethod
    def _export(path: Path, function: Any, specs: list[Any]) -> None:
        _exporting(
            lambda: tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET, output_path=str(path))
        )


class FrozenGraph(Original):
    """A GraphDef with its weights in it. Its outputs are the nodes that nothing takes from."""

    def __init__(self, path: Path, inputs: list[Input]) -> None:
        self._graph = tf.compat.v1.GraphDef()
        try:
            self._graph.ParseFromString(path.read_bytes())
            self._session = tf.compat.v1.Session(graph=tf.Graph())
            with self._session.graph.as_default():
                tf.import_graph_def(self._graph, name="")
        except (*UNREADABLE,) as error:
            raise ConversionRefused(f"TensorFlow does not read it: {_line(error)}") from error
        taken = {name.lstrip("^").split(":")[0] for node in self._graph.node for name in node.input}
        ends = [node.name for node in self._graph.node if node.name not in taken and node.op not in NOT_AN_OUTPUT]
        self._outputs = [f"{name}:0" for name in ends]
        self._inputs = inputs
        check_names(
            [item.name for item in inputs], [node.name for node in self._graph.node if node.op == "Placeholder"]
        )

    def run(self, values: Sequence[Array]) -> list[Array]:
        feeds = {f"{item.name}:0": value for item, value in zip(self._inputs, values, strict=True)}
        try:
            return list(self._session.run(self._outputs, feeds))
        except UNREADABLE as error:
            raise ConversionRefused(f"the model does not take what its descriptor says: {_line(error)}") from error

    def export(self, path: Path) -> None:
        model, _ = _exporting(
            lambda: tf2onnx.convert.from_graph_def(
                self._graph,
                input_names=[f"{item.name}:0" for item in self._inputs],
                output_names=self._outputs,
                opset=OPSET,
                shape_override={f"{item.name}:0": list(item.shape) for item in self._inputs},
            )
        )
        # Clients of the model call its inputs and outputs by the names of nodes.
        rename(
            model.graph,
            {name: name.removesuffix(":0") for name in [*(f"{item.name}:0" for item in self._inputs), *self._outputs]},
        )
        onnx.save(model, str(path))


class Lite(Original):
    """A TFLite flatbuffer."""

    def __init__(self, path: Path, inputs: list[Input]) -> None:
        self._path, self._described = path, inputs
        try:
            self._interpreter = tf.lite.Interpreter(str(path))
        except UNREADABLE as error:
            raise ConversionRefused(f"TFLite does not read it: {_line(error)}") from error
        self._rows = {row["name"]: row["index"] for row in self._interpreter.get_input_details()}
        check_names([item.name for item in inputs], list(self._rows))

    def run(self, values: Sequence[Array]) -> list[Array]:
        interpreter = self._interpreter
        try:
            for item, value in zip(self._described, values, strict=True):
                interpreter.resize_tensor_input(self._rows[item.name], value.shape)
            interpreter.allocate_tensors()
            for item, value in zip(self._described, values, strict=True):
                interpreter.set_tensor(self._rows[item.name], value)
            interpreter.invoke()
        except UNREADABLE as error:
            raise ConversionRefused(f"the model does not take what its descriptor says: {_line(error)}") from error
        return [interpreter.get_tensor(row["index"]) for row in interpreter.get_output_details()]

    def export(self, path: Path) -> None:
        _exporting(lambda: tf2onnx.convert.from_tflite(str(self._path), opset=OPSET, output_path=str(path)))


def load(path: Path, kind: str, inputs: list[Input]) -> Original:
    """The model by its kind, one of belvedere.modelfile's."""
    if kind == "TFLite":
        return Lite(path, inputs)
    if kind == "TensorFlow frozen graph":
        return FrozenGraph(path, inputs)
    try:
        if kind == "Keras":
            return _keras(path, inputs)
        return _saved_model(path, inputs)
    except UNREADABLE as error:
        raise ConversionRefused(f"TensorFlow does not read it: {_line(error)}") from error


def _keras(path: Path, inputs: list[Input]) -> Original:
    model = tf.keras.models.load_model(str(path), compile=False)
    names = [getattr(item, "name", "") for item in tf.nest.flatten(model.inputs)]
    if len(names) != len(inputs):
        check_names([item.name for item in inputs], names)

    def call(*values: Any) -> Any:
        return model(list(values) if len(values) > 1 else values[0], training=False)

    return Function(call, inputs, model)


def _saved_model(path: Path, inputs: list[Input]) -> Original:
    holder = tf.saved_model.load(str(path))
    signatures = holder.signatures
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if name is None:
        raise ConversionRefused("the SavedModel has no signature; save it with signatures={'serving_default': …}")
    signature = signatures[name]
    check_names([item.name for item in inputs], list(signature.structured_input_signature[1]))

    def call(*values: Any) -> Any:
        return signature(**{item.name: value for item, value in zip(inputs, values, strict=True)})

    return Function(call, inputs, holder)


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Gives values of a graph, and of the graphs inside it, other names."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                rename(inner, names)


def _exporting(export: Callable[[], Any]) -> Any:
    try:
        return export()
    except (*UNREADABLE, KeyError, AttributeError, AssertionError) as error:
        raise ConversionRefused(f"tf2onnx does not convert it: {_line(error)}") from error


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


if __name__ == "__main__":
    main(load)
