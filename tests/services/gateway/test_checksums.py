"""The checksums, judged by their published check values and by a plain loop over bytes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway import checksums


def slow_crc(data: bytes, polynomial: int, bits: int) -> int:
    mask = register = (1 << bits) - 1
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ polynomial if register & 1 else register >> 1
    return register ^ mask


@pytest.mark.parametrize(
    ("algorithm", "check"),
    [
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
        ("sha1", "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        ("sha256", "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ],
)
def test_each_algorithm_gives_the_published_value_for_123456789(algorithm: str, check: str) -> None:
    checksum = checksums.new(algorithm)
    checksum.update(b"123456789")
    assert checksum.digest().hex() == check
    assert checksums.encoded(checksum) == base64.b64encode(bytes.fromhex(check)).decode()


@settings(max_examples=25)
@given(
    st.lists(st.binary(max_size=700), max_size=8),
    st.sampled_from([("crc32c", 0x82F63B78, 32), ("crc64nvme", 0x9A6C9329AC4BC9B5, 64)]),
)
def test_pieces_of_any_size_give_the_checksum_of_the_whole(pieces: list[bytes], kind: tuple[str, int, int]) -> None:
    name, polynomial, bits = kind
    checksum = checksums.new(name)
    for piece in pieces:
        checksum.update(piece)
    assert int.from_bytes(checksum.digest(), "big") == slow_crc(b"".join(pieces), polynomial, bits)


def test_an_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="crc64nvme"):
        checksums.new("md6")
