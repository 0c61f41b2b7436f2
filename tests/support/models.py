"""Tiny models, written byte by byte: no framework is needed to make them, and every backend can read them.

    tiny_onnx(path)          # x float32 (1, 3) → doubled, negated
    tiny_tensorflow(path)    # image uint8 (?, 2, 2, 3) → opposite, pixels; a frozen graph
    slow_onnx(path)          # keeps a core busy for a while to compute

Both formats are protobuf messages; `_message` writes one from (field number, value) pairs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

Field = tuple[int, "int | bytes | str"]

ONNX_FLOAT = 1
TF_FLOAT, TF_UINT8 = 1, 4


def tiny_onnx(path: Path, shape: Sequence[int | str] = (1, 3), op: str = "Neg", domain: str = "") -> Path:
    """`x` float32 of `shape` (a text: an open size) → `doubled` = 2·x, `negated` = op(x)."""
    two = _message((1, 1), (2, ONNX_FLOAT), (8, "two"), (9, struct.pack("<f", 2.0)))
    nodes = [_onnx_node("Mul", ["x", "two"], ["doubled"]), _onnx_node(op, ["x"], ["negated"], domain)]
    values = {name: _onnx_value(name, shape) for name in ("x", "doubled", "negated")}
    return _onnx_file(path, nodes, [two], [values["x"]], [values["doubled"], values["negated"]], domain)


def slow_onnx(path: Path, layers: int = 60, side: int = 512) -> Path:
    """`x` float32 (side, side), multiplied with itself `layers` times over: `y`. 60 layers of 512 take some 0.1 s."""
    names = ["x", *(f"x{number}" for number in range(1, layers)), "y"]
    nodes = [_onnx_node("MatMul", [names[i], "x"], [names[i + 1]]) for i in range(layers)]
    values = {name: _onnx_value(name, (side, side)) for name in ("x", "y")}
    return _onnx_file(path, nodes, [], [values["x"]], [values["y"]])


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


def _onnx_node(op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "") -> bytes:
    fields: list[Field] = [(1, name) for name in inputs]
    fields += [(2, name) for name in outputs]
    return _message(*fields, (3, f"{op}-{outputs[0]}"), (4, op), *([(7, domain)] if domain else []))


def _onnx_value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = [_message((1, size) if isinstance(size, int) else (2, size)) for size in shape]
    tensor = _message((1, ONNX_FLOAT), (2, _message(*((1, size) for size in sizes))))
    return _message((1, name), (2, _message((1, tensor))))


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
