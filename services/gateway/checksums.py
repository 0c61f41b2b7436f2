"""The checksums that S3 clients send with a body: CRC-32, CRC-32C, CRC-64/NVME, SHA-1, SHA-256, each in base64.

Knows only bytes. The standard library has no CRC-32C and no CRC-64/NVME: here many lanes of a block run through the
table side by side in numpy, and are then folded into one, which is some hundred times faster than a loop over bytes.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LANE_BYTES = 64
"""Bytes that one lane runs through. The loop over them is Python's, what happens in it is numpy's."""


class Checksum(Protocol):
    """Fed with the body piece by piece."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Crc:
    """A reflected CRC whose register starts and ends inverted."""

    def __init__(self, polynomial: int, bits: int) -> None:
        self._polynomial, self._bits = polynomial, bits
        self._mask = (1 << bits) - 1
        self._register = self._mask
        self._pending = b""

    def update(self, data: bytes, /) -> None:
        data = self._pending + data
        whole = len(data) // LANE_BYTES
        lanes = 1 << (whole.bit_length() - 1) if whole else 0
        start = 0
        while lanes:
            size = lanes * LANE_BYTES
            self._fold(np.frombuffer(data, np.uint8, size, start).reshape(lanes, LANE_BYTES))
            start += size
            rest = (len(data) - start) // LANE_BYTES
            lanes = 1 << (rest.bit_length() - 1) if rest else 0
        self._pending = data[start:]

    def digest(self) -> bytes:
        table = _table(self._polynomial, self._bits)
        register = self._register
        for byte in self._pending:
            register = int(table[(register ^ byte) & 0xFF]) ^ (register >> 8)
        return (register ^ self._mask).to_bytes(self._bits // 8, "big")

    def _fold(self, block: NDArray[np.uint8]) -> None:
        table = _table(self._polynomial, self._bits)
        registers = np.zeros(len(block), np.uint64)
        registers[0] = self._register
        low, eight = np.uint64(0xFF), np.uint64(8)
        for column in block.T:
            registers = table[((registers ^ column) & low).astype(np.intp)] ^ (registers >> eight)
        length = LANE_BYTES
        while len(registers) > 1:
            left, right = registers[0::2], registers[1::2]
            registers = _shift(left, length, self._polynomial, self._bits) ^ right
            length *= 2
        self._register = int(registers[0])


@lru_cache(maxsize=8)
def _table(polynomial: int, bits: int) -> NDArray[np.uint64]:
    values = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ polynomial if byte & 1 else byte >> 1
        values.append(byte)
    return np.array(values, np.uint64)


def _shift(registers: NDArray[np.uint64], length: int, polynomial: int, bits: int) -> NDArray[np.uint64]:
    """What each register becomes when `length` zero bytes follow: a linear map, applied byte by byte."""
    result = np.zeros(len(registers), np.uint64)
    for index, table in enumerate(_shift_tables(length, polynomial, bits)):
        result ^= table[((registers >> np.uint64(8 * index)) & np.uint64(0xFF)).astype(np.intp)]
    return result


@lru_cache(maxsize=128)
def _shift_tables(length: int, polynomial: int, bits: int) -> tuple[NDArray[np.uint64], ...]:
    table = _table(polynomial, bits)
    if length == LANE_BYTES:
        images = np.array([1 << bit for bit in range(bits)], np.uint64)
        for _ in range(length):
            images = table[(images & np.uint64(0xFF)).astype(np.intp)] ^ (images >> np.uint64(8))
    else:
        images = np.array([1 << bit for bit in range(bits)], np.uint64)
        for _ in range(2):
            images = _shift(images, length // 2, polynomial, bits)
    tables = []
    for first in range(0, bits, 8):
        values = np.zeros(256, np.uint64)
        for bit in range(8):
            values[np.arange(256) & (1 << bit) != 0] ^= images[first + bit]
        tables.append(values)
    return tuple(tables)


ALGORITHMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")


def new(algorithm: str) -> Checksum:
    """A fresh checksum. Raises ValueError for an algorithm not in ALGORITHMS."""
    match algorithm:
        case "crc32":
            return _Crc32()
        case "crc32c":
            return _Crc(0x82F63B78, 32)
        case "crc64nvme":
            return _Crc(0x9A6C9329AC4BC9B5, 64)
        case "sha1":
            return hashlib.sha1()  # a client's choice against accidents, no defence
        case "sha256":
            return hashlib.sha256()
        case _:
            raise ValueError(f"no checksum algorithm {algorithm!r}: one of {', '.join(ALGORITHMS)}")


def encoded(checksum: Checksum) -> str:
    """As headers carry it."""
    return base64.b64encode(checksum.digest()).decode()
