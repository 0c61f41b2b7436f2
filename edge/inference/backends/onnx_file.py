"""What an ONNX file says of itself, read with no library: for checks before one is asked to load it. Must not know any
backend.

Protobuf: a field is its number and wire type, and for texts their length. The names of operations stand in the nodes'
field 4, types of tensors in field 2 of initialisers; weights themselves are passed over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import psutil

from edge.inference.errors import ModelInvalid

GRAPH, NODE, OPERATION, DOMAIN, INITIALIZER, DATA_TYPE = 7, 1, 4, 7, 5, 2
FLOAT16 = 10
QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})  # fmt: skip
# Weights are read, then laid out anew for the machine, before the first copy goes.
COPIES = 2


def operations(file: Path) -> set[str]:
    """The names of its operations, those of inner graphs left out; what can be read of a file that is damaged."""
    return {str(text, "utf-8", "replace") for node in _graph(file, NODE) for text in _texts(node, OPERATION)}


def domains(file: Path) -> dict[str, str]:
    """Operation → its domain, of those that have one other than ONNX's own."""
    found = {}
    for node in _graph(file, NODE):
        for domain in _texts(node, DOMAIN):
            for operation in _texts(node, OPERATION):
                found[str(operation, "utf-8", "replace")] = str(domain, "utf-8", "replace")
    return {operation: domain for operation, domain in found.items() if domain}


def is_half(file: Path) -> bool:
    """Some of its weights are of half precision."""
    return any(
        number == DATA_TYPE and value == FLOAT16
        for weight in _graph(file, INITIALIZER)
        for number, value in _fields(weight)
    )


def check_precision(file: Path, precision: str) -> None:
    """Raises ModelInvalid where INT8 is asked of a model that is not quantised."""
    if precision.upper() == "INT8" and not operations(file) & QUANTISED:
        raise ModelInvalid(
            "the descriptor's precisionMode is INT8, but the model is not quantised: quantise it before it is "
            "registered, or say FP16 or FP32"
        )


def check_memory(file: Path) -> None:
    """Raises ModelInvalid where the weights cannot fit. They may lie in files beside it."""
    files = [file.resolve(), *(other for other in file.parent.iterdir() if other != file and other.is_file())]
    try:
        size = sum(one.stat().st_size for one in files)
    except OSError as error:
        raise ModelInvalid(f"the model file cannot be read: {error.strerror}") from error
    free = psutil.virtual_memory().available
    if size * COPIES > free:
        raise ModelInvalid(
            f"the model's weights take {size / (1 << 30):.1f} GiB, and {COPIES} times that while it is loaded; the "
            f"appliance has {free / (1 << 30):.1f} GiB of memory free"
        )


def _graph(file: Path, wanted: int) -> Iterator[memoryview]:
    """The parts of the graph with this field number."""
    if not file.stat().st_size:
        return
    with file.open("rb") as opened:
        # Not closed by hand: it goes with the last view of it, wherever that one is.
        whole = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    for graph in _texts(whole, GRAPH):
        yield from _texts(graph, wanted)


def _texts(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value); ends where the bytes make no sense."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(data, at)
            yield number, data[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            return


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 63:
            break
    return value, at
