"""Named tensors in a slot: written without a copy in between, read as read-only views, checked against hostile headers.

    header  magic u32, count u32, total u64
    entry   name length u16, dtype u8, dimensions u8, zero u32, offset u64, bytes u64, shape u64 × MAX_DIMENSIONS, name
    data    each tensor C-contiguous, little-endian, at a multiple of ALIGN

Entries have a fixed size, the name's MAX_NAME_BYTES included. Order is kept. Pure.
Must not know: models, batches, or who sends.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Dict, Mapping

import numpy as np

from framelink.errors import TensorError
from framelink.layout import align

if TYPE_CHECKING:
    from framelink.layout import Array, Bytes

Tensors = Dict[str, Any]
"""name → ndarray, in order."""

MAGIC = 0x31534E54  # "TNS1"
MAX_TENSORS = 64
MAX_DIMENSIONS = 8
MAX_NAME_BYTES = 256
MAX_TOTAL_BYTES = 1 << 30

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
"""What can be sent; the index is the number on the wire."""

_DTYPES = [np.dtype(name).newbyteorder("<") for name in DTYPES]
_NUMBERS = {np.dtype(name): number for number, name in enumerate(DTYPES)}
"""For the usual byte order: numpy makes a dtype's name anew, slowly, each time it is asked."""
_HEADER = struct.Struct("<IIQ")
_ENTRY = struct.Struct("<HBBIQQ%dQ%ds" % (MAX_DIMENSIONS, MAX_NAME_BYTES))


def encoded_size(tensors: Mapping[str, Array]) -> int:
    """Bytes that `encode` will need. TensorError for what cannot be sent."""
    if len(tensors) > MAX_TENSORS:
        raise TensorError("%d tensors; at most %d go together" % (len(tensors), MAX_TENSORS))
    at = align(_HEADER.size + len(tensors) * _ENTRY.size)
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not 0 < len(name.encode()) <= MAX_NAME_BYTES or "\0" in name:
            raise TensorError("a tensor's name has 1..%d bytes and no NUL, this one is %r" % (MAX_NAME_BYTES, name))
        if not isinstance(tensor, np.ndarray):
            raise TensorError("tensor %r is a %s, not an ndarray" % (name, type(tensor).__name__))
        if tensor.dtype not in _NUMBERS and tensor.dtype.name not in DTYPES:
            raise TensorError("tensor %r has dtype %s; possible are %s" % (name, tensor.dtype, ", ".join(DTYPES)))
        if tensor.ndim > MAX_DIMENSIONS:
            raise TensorError("tensor %r has %d dimensions; at most %d" % (name, tensor.ndim, MAX_DIMENSIONS))
        _check_shape(name, tensor.shape, tensor.itemsize)
        at = align(at + tensor.nbytes)
    if at > MAX_TOTAL_BYTES:
        raise TensorError("%d bytes of tensors; at most %d go together" % (at, MAX_TOTAL_BYTES))
    return at


def encode(tensors: Mapping[str, Array], out: Bytes, size: int | None = None) -> int:
    """Write the tensors into a slot's payload (any memory order and byte order). Returns the bytes used. `size`: what
    `encoded_size` has said of them, where it was asked already.
    """
    total = encoded_size(tensors) if size is None else size
    if total > out.size:
        raise TensorError("%d bytes of tensors do not fit into %d" % (total, out.size))
    header = out.data
    _HEADER.pack_into(header, 0, MAGIC, len(tensors), total)
    at = align(_HEADER.size + len(tensors) * _ENTRY.size)
    for number, (name, tensor) in enumerate(tensors.items()):
        code = _NUMBERS.get(tensor.dtype, -1)
        if code < 0:
            code = DTYPES.index(tensor.dtype.name)
        raw = name.encode()
        shape = (*tensor.shape, *([0] * (MAX_DIMENSIONS - tensor.ndim)))
        entry = (len(raw), code, tensor.ndim, 0, at, tensor.nbytes, *shape, raw)
        _ENTRY.pack_into(header, _HEADER.size + number * _ENTRY.size, *entry)
        target = out[at : at + tensor.nbytes].view(_DTYPES[code]).reshape(tensor.shape)
        np.copyto(target, tensor)
        at = align(at + tensor.nbytes)
    return total


def decode(payload: Bytes) -> Tensors:
    """Views of the tensors in a slot's payload, read-only where the memory is.

    The bytes may come from someone hostile, who may change them while we look: every field is read once, checked, then
    used. TensorError for anything that does not add up.
    """
    available = payload.size
    if available < _HEADER.size:
        raise TensorError("%d bytes hold no tensors" % available)
    header = payload.data
    magic, count, total = _HEADER.unpack_from(header, 0)
    if magic != MAGIC:
        raise TensorError("these bytes are no tensors (magic %#x)" % magic)
    if count > MAX_TENSORS or total > available or total > MAX_TOTAL_BYTES:
        raise TensorError("%d tensors in %d of %d bytes" % (count, total, available))
    data_start = align(_HEADER.size + count * _ENTRY.size)
    if data_start > total:
        raise TensorError("%d tensors have no room in %d bytes" % (count, total))
    tensors: Tensors = {}
    for number in range(count):
        fields = _ENTRY.unpack_from(header, _HEADER.size + number * _ENTRY.size)
        name, tensor = _decode_entry(payload, fields, data_start, total)
        if name in tensors:
            raise TensorError("two tensors are called %r" % name)
        tensors[name] = tensor
    return tensors


def _check_shape(name: str, shape: tuple[int, ...], item_bytes: int) -> None:
    """Even an empty tensor's other sides must make sense: numpy refuses what overflows its own index."""
    extent = item_bytes
    for side in shape:  # Python's integers do not overflow.
        extent *= max(side, 1)
    if extent > MAX_TOTAL_BYTES:
        raise TensorError("tensor %r has the shape %s; at most %d bytes go" % (name, list(shape), MAX_TOTAL_BYTES))


def _decode_entry(payload: Bytes, fields: tuple[Any, ...], data_start: int, total: int) -> tuple[str, Array]:
    name_length, code, dimensions, _, offset, size = fields[:6]
    shape, raw = fields[6:-1], fields[-1]
    if not 0 < name_length <= MAX_NAME_BYTES or code >= len(_DTYPES) or dimensions > MAX_DIMENSIONS:
        raise TensorError("a tensor with %d dimensions, dtype %d, name of %d bytes" % (dimensions, code, name_length))
    try:
        name = raw[:name_length].decode()
    except UnicodeDecodeError as error:
        raise TensorError("a tensor's name is not UTF-8") from error
    shape = shape[:dimensions]
    _check_shape(name, shape, _DTYPES[code].itemsize)
    expected = _DTYPES[code].itemsize
    for side in shape:
        expected *= side
    if expected != size:
        raise TensorError("tensor %r has %d bytes, its shape %s needs %d" % (name, size, list(shape), expected))
    if offset < data_start or offset % _DTYPES[code].itemsize or offset + size > total:
        raise TensorError("tensor %r lies at %d..%d of %d bytes" % (name, offset, offset + size, total))
    return name, payload[offset : offset + size].view(_DTYPES[code]).reshape(shape)
