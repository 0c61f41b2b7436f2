"""Tiny models, written byte by byte: no framework is needed to make them, and every backend can read them.

    tiny_onnx(path)          # x float32 (1, 3) → doubled, negated
    tiny_tensorflow(path)    # image uint8 (?, 2, 2, 3) → opposite, pixels; a frozen graph
    slow_onnx(path)          # keeps a core busy for a while to compute
    endless_onnx(path)       # computes for as many rounds as its input says: a model that can hang
    lookup_onnx(path)        # fails for some inputs, and only when it computes
    matmul_onnx(path, side)  # small outside, side² numbers inside
    mixing_onnx(path)        # answers that depend on who else is in the batch
    image_onnx(path)         # a picture comes out as it went in: what preprocessing made
    weighted_onnx(path, w)   # x · w, whatever w is: NaN, a large one, one of half precision
    mobilenet_onnx(path)     # MobileNetV2's layers with random weights: a real load for benchmarks

Both formats are protobuf messages; `_message` writes one from (field number, value) pairs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Field = tuple[int, "int | bytes | str"]

ONNX_FLOAT, ONNX_UINT8, ONNX_INT8, ONNX_INT64, ONNX_BOOL, ONNX_FLOAT16 = 1, 2, 3, 7, 9, 10
TF_FLOAT, TF_UINT8 = 1, 4


def tiny_onnx(path: Path, shape: Sequence[int | str] = (1, 3), op: str = "Neg", domain: str = "") -> Path:
    """`x` float32 of `shape` (a text: an open size) → `doubled` = 2·x, `negated` = op(x)."""
    two = _message((1, 1), (2, ONNX_FLOAT), (8, "two"), (9, struct.pack("<f", 2.0)))
    nodes = [_onnx_node("Mul", ["x", "two"], ["doubled"]), _onnx_node(op, ["x"], ["negated"], domain)]
    values = {name: _onnx_value(name, shape) for name in ("x", "doubled", "negated")}
    return _onnx_file(path, nodes, [two], [values["x"]], [values["doubled"], values["negated"]], domain)


def image_onnx(path: Path, shape: Sequence[int | str] = (1, 3, 4, 4), dtype: int = ONNX_FLOAT) -> Path:
    """`image` of `shape` → `same`, the same numbers."""
    nodes = [_onnx_node("Identity", ["image"], ["same"])]
    return _onnx_file(path, nodes, [], [_onnx_value("image", shape, dtype)], [_onnx_value("same", shape, dtype)])


def weighted_onnx(path: Path, weight: Array, shape: Sequence[int | str] = (1, 3)) -> Path:
    """`x` float32 of `shape` → `y` = x · weight (float32 or float16, cast), by numpy's rules of broadcasting."""
    half = weight.dtype == np.float16
    nodes = [_onnx_node("Cast", ["w"], ["w32"], attributes=[("to", ONNX_FLOAT)])] if half else []
    nodes.append(_onnx_node("Mul", ["x", "w32" if half else "w"], ["y"]))
    out = [side if isinstance(side, str) else None for side in shape]
    sizes = np.broadcast_shapes(tuple(1 if isinstance(side, str) else side for side in shape), weight.shape)
    given = [open_side or size for open_side, size in zip(out, sizes[-len(out) :], strict=True)]
    return _onnx_file(path, nodes, [_onnx_weight("w", weight)], [_onnx_value("x", shape)], [_onnx_value("y", given)])


def quantised_onnx(path: Path, step: float = 0.5) -> Path:
    """`x` float32 (1, 3) → `y`, the same rounded to whole steps of 8 bits."""
    constants = [_onnx_weight("step", np.array(step, np.float32)), _onnx_weight("zero", np.array(0, np.int8))]
    nodes = [
        _onnx_node("QuantizeLinear", ["x", "step", "zero"], ["small"]),
        _onnx_node("DequantizeLinear", ["small", "step", "zero"], ["y"]),
    ]
    return _onnx_file(path, nodes, constants, [_onnx_value("x", (1, 3))], [_onnx_value("y", (1, 3))])


def lookup_onnx(path: Path, batch: int | str = "batch") -> Path:
    """`place` int64 (batch, 1) → `value` (batch, 1), the `place`th of ten numbers: fails for any other place."""
    table = _onnx_weight("table", np.arange(10, dtype=np.float32) * 10)
    nodes = [_onnx_node("Gather", ["table", "place"], ["value"])]
    values = ([_onnx_value("place", (batch, 1), ONNX_INT64)], [_onnx_value("value", (batch, 1))])
    return _onnx_file(path, nodes, [table], *values)


def matmul_onnx(path: Path, side: int | str) -> Path:
    """`x` float32 (side, 1) → `y` (1,): the largest of x · xᵀ, which is side² numbers."""
    nodes = [
        _onnx_node("Transpose", ["x"], ["turned"], attributes=[("perm", [1, 0])]),
        _onnx_node("MatMul", ["x", "turned"], ["product"]),
        _onnx_node("ReduceMax", ["product"], ["y"], attributes=[("axes", [0, 1]), ("keepdims", 0)]),
    ]
    return _onnx_file(path, nodes, [], [_onnx_value("x", (side, 1))], [_onnx_value("y", ())])


def mixing_onnx(path: Path) -> Path:
    """`x` float32 (batch, 3) → `y` = x − the mean over the batch."""
    nodes = [
        _onnx_node("ReduceMean", ["x"], ["mean"], attributes=[("axes", [0]), ("keepdims", 1)]),
        _onnx_node("Sub", ["x", "mean"], ["y"]),
    ]
    return _onnx_file(path, nodes, [], [_onnx_value("x", ("batch", 3))], [_onnx_value("y", ("batch", 3))])


def endless_onnx(path: Path) -> Path:
    """`rounds` int64 (1,), `x` float32 (1, 3) → `y`: x, added to itself so many times. 10⁹ rounds take hours."""
    body = _message(
        (1, _onnx_node("Add", ["carried", "x"], ["added"])),
        (1, _onnx_node("Identity", ["go_on"], ["still"])),
        (2, "body"),
        *((11, value) for value in (
            _onnx_value("number", (), ONNX_INT64), _onnx_value("go_on", (), ONNX_BOOL), _onnx_value("carried", (1, 3))
        )),
        *((12, value) for value in (_onnx_value("still", (), ONNX_BOOL), _onnx_value("added", (1, 3)))),
    )  # fmt: skip
    nodes = [
        _onnx_node("Squeeze", ["rounds"], ["count"]),
        _onnx_node("Loop", ["count", "true", "x"], ["y"], attributes=[("body", body)]),
    ]
    true = _message((2, ONNX_BOOL), (8, "true"), (9, b"\x01"))
    inputs = [_onnx_value("rounds", (1,), ONNX_INT64), _onnx_value("x", (1, 3))]
    return _onnx_file(path, nodes, [true], inputs, [_onnx_value("y", (1, 3))])


def slow_onnx(path: Path, layers: int = 60, side: int = 512) -> Path:
    """`x` float32 (side, side), multiplied with itself `layers` times over: `y`. 60 layers of 512 take some 0.1 s."""
    names = ["x", *(f"x{number}" for number in range(1, layers)), "y"]
    nodes = [_onnx_node("MatMul", [names[i], "x"], [names[i + 1]]) for i in range(layers)]
    values = {name: _onnx_value(name, (side, side)) for name in ("x", "y")}
    return _onnx_file(path, nodes, [], [values["x"]], [values["y"]])


# (expansion, channels, repeats, stride): Sandler et al., MobileNetV2, table 2.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_onnx(path: Path, batch: int | str = "batch", side: int = 224) -> Path:
    """`image` float32 (batch, 3, side, side) → `features` (batch, 1280): MobileNetV2 with random weights, 2.2 million."""
    net = _Layers()
    x = net.convolution("image", 3, 32, stride=2)
    channels = 32
    for expansion, out, repeats, stride in MOBILENET_V2:
        for number in range(repeats):
            came_in, wide, step = x, channels * expansion, stride if number == 0 else 1
            if expansion > 1:
                x = net.convolution(x, channels, wide, kernel=1)
            x = net.convolution(x, wide, wide, stride=step, groups=wide)
            x = net.convolution(x, wide, out, kernel=1, clip=False)
            if step == 1 and channels == out:
                x = net.node("Add", [x, came_in])
            channels = out
    x = net.convolution(x, channels, 1280, kernel=1)
    x = net.node("GlobalAveragePool", [x])
    net.nodes.append(_onnx_node("Flatten", [x], ["features"]))
    values = ([_onnx_value("image", (batch, 3, side, side))], [_onnx_value("features", (batch, 1280))])
    return _onnx_file(path, net.nodes, net.weights, *values)


class _Layers:
    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self._rng = np.random.default_rng(0)
        self.weights = [_onnx_weight("zero", np.array(0, np.float32)), _onnx_weight("six", np.array(6, np.float32))]

    def node(
        self, op: str, inputs: Sequence[str], attributes: Sequence[tuple[str, int | list[int] | bytes]] = ()
    ) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(_onnx_node(op, inputs, [name], attributes=attributes))
        return name

    def convolution(
        self, x: str, inside: int, out: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, clip: bool = True
    ) -> str:
        shape = (out, inside // groups, kernel, kernel)
        values = self._rng.standard_normal(shape, np.float32) * np.sqrt(2.0 / np.prod(shape[1:])).astype(np.float32)
        weight, bias = f"w{len(self.nodes)}", f"b{len(self.nodes)}"
        self.weights += [_onnx_weight(weight, values), _onnx_weight(bias, np.zeros(out, np.float32))]
        attributes: list[tuple[str, int | list[int] | bytes]] = [
            ("kernel_shape", [kernel, kernel]), ("strides", [stride, stride]), ("pads", [kernel // 2] * 4),
            ("group", groups),
        ]  # fmt: skip
        made = self.node("Conv", [x, weight, bias], attributes)
        return self.node("Clip", [made, "zero", "six"]) if clip else made


def tiny_tensorflow(path: Path) -> Path:
    """`image` uint8 (?, 2, 2, 3) → `opposite` = −image, `pixels` = image, both float32: a frozen graph."""
    path.write_bytes(tiny_tensorflow_bytes())
    return path


def tiny_tensorflow_bytes() -> bytes:
    """The file of `tiny_tensorflow`."""
    sizes = [_message((2, _message((1, size)))) for size in (-1, 2, 2, 3)]
    shape = _message((7, b"".join(sizes)))
    cast_attributes = {"SrcT": _message((6, TF_UINT8)), "DstT": _message((6, TF_FLOAT))}
    nodes = [
        _tf_node("image", "Placeholder", [], {"dtype": _message((6, TF_UINT8)), "shape": shape}),
        _tf_node("cast", "Cast", ["image"], cast_attributes),
        _tf_node("opposite", "Neg", ["cast"], {"T": _message((6, TF_FLOAT))}),
        _tf_node("pixels", "Identity", ["cast"], {"T": _message((6, TF_FLOAT))}),
    ]
    return b"".join(_message((1, node)) for node in nodes)


def _onnx_file(
    path: Path,
    nodes: Sequence[bytes],
    constants: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    domain: str = "",
) -> Path:
    graph = _message(
        *((1, node) for node in nodes),
        (2, "tiny"),
        *((5, constant) for constant in constants),
        *((11, value) for value in inputs),
        *((12, value) for value in outputs),
    )
    opsets = [_message((1, ""), (2, 13)), *([_message((1, domain), (2, 1))] if domain else [])]
    path.write_bytes(_message((1, 8), (7, graph), *((8, opset) for opset in opsets)))
    return path


def _onnx_node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    domain: str = "",
    attributes: Sequence[tuple[str, int | list[int] | bytes]] = (),
) -> bytes:
    fields: list[Field] = [(1, name) for name in inputs]
    fields += [(2, name) for name in outputs]
    fields += [(3, f"{op}-{outputs[0]}"), (4, op)]
    fields += [(5, _onnx_attribute(name, value)) for name, value in attributes]
    return _message(*fields, *([(7, domain)] if domain else []))


def _onnx_attribute(name: str, value: int | list[int] | bytes) -> bytes:
    """A whole number, whole numbers, or an inner graph."""
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, 2))
    if isinstance(value, bytes):
        return _message((1, name), (6, value), (20, 5))
    return _message((1, name), *((8, number) for number in value), (20, 7))


def _onnx_value(name: str, shape: Sequence[int | str], dtype: int = ONNX_FLOAT) -> bytes:
    sizes = [_message((1, size) if isinstance(size, int) else (2, size)) for size in shape]
    tensor = _message((1, dtype), (2, _message(*((1, size) for size in sizes))))
    return _message((1, name), (2, _message((1, tensor))))


def _onnx_weight(name: str, values: Array) -> bytes:
    dtype = {"float16": ONNX_FLOAT16, "int8": ONNX_INT8}.get(values.dtype.name, ONNX_FLOAT)
    return _message(*((1, side) for side in values.shape), (2, dtype), (8, name), (9, values.tobytes()))


def _tf_node(name: str, op: str, inputs: Sequence[str], attributes: dict[str, bytes]) -> bytes:
    entries = [(5, _message((1, key), (2, value))) for key, value in attributes.items()]
    return _message((1, name), (2, op), *((3, source) for source in inputs), *entries)


def _message(*fields: Field) -> bytes:
    """Protobuf: a whole number goes as a varint (wire type 0), anything else with its length (wire type 2)."""
    data = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            data += _varint(number << 3) + _varint(value & (1 << 64) - 1)
        else:
            payload = value.encode() if isinstance(value, str) else value
            data += _varint(number << 3 | 2) + _varint(len(payload)) + payload
    return bytes(data)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
