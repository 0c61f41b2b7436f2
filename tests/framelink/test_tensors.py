"""Tensors through a slot: whatever goes in comes out; whatever else comes in is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from framelink import TensorError, tensors

names = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=20)
arrays = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in tensors.DTYPES]),
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
)
sets = st.dictionaries(names, arrays, max_size=5)


def _encoded(given):
    payload = np.zeros(tensors.encoded_size(given) + 100, np.uint8)
    tensors.encode(given, payload)
    return payload


@settings(max_examples=150)
@given(sets)
def test_tensors_come_out_as_they_went_in(given):
    back = tensors.decode(_encoded(given))
    assert list(back) == list(given)
    for name, tensor in given.items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert back[name].tobytes() == tensor.tobytes()


def test_memory_order_and_byte_order_do_not_matter():
    grid = np.arange(24, dtype=">i4").reshape(2, 3, 4)
    given = {"turned": grid.transpose(2, 0, 1), "strided": grid[:, ::2, ::-1], "fortran": np.asfortranarray(grid)}
    for name, tensor in tensors.decode(_encoded(given)).items():
        assert np.array_equal(tensor, given[name])


def test_views_are_read_only_where_the_memory_is():
    payload = _encoded({"x": np.zeros(3)})
    payload.setflags(write=False)
    with pytest.raises(ValueError):
        tensors.decode(payload)["x"][0] = 1


@pytest.mark.parametrize(
    "given",
    [
        {"": np.zeros(1)},
        {"n" * 300: np.zeros(1)},
        {"a\0b": np.zeros(1)},
        {"x": np.zeros(1, complex)},
        {"x": np.array(["text"])},
        {"x": np.array([object()])},
        {"x": [1, 2, 3]},
        {"x": np.zeros((1,) * 9)},
        {"x": np.broadcast_to(np.zeros(1), (1 << 31,))},
        {"x": np.zeros((0, 1 << 31))},
        {str(number): np.zeros(1) for number in range(65)},
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_written(given):
    with pytest.raises(TensorError):
        tensors.encoded_size(given)


def test_tensors_that_do_not_fit_are_refused():
    with pytest.raises(TensorError, match="fit"):
        tensors.encode({"x": np.zeros(1000)}, np.zeros(1000, np.uint8))


@settings(max_examples=300)
@given(sets, st.data())
def test_damaged_headers_are_refused_or_stay_within_the_payload(given, data):
    payload = _encoded(given)
    header = tensors._HEADER.size + len(given) * tensors._ENTRY.size
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, header - 1))
        payload[position] = data.draw(st.integers(0, 255))
    try:
        back = tensors.decode(payload)
    except TensorError:
        return
    first = payload.__array_interface__["data"][0]
    for tensor in back.values():
        start = tensor.__array_interface__["data"][0]
        assert tensor.size == 0 or (first <= start and start + tensor.nbytes <= first + payload.size)


@settings(max_examples=200)
@given(st.binary(max_size=2000))
def test_no_bytes_crash_decode(raw):
    with pytest.raises(TensorError):
        tensors.decode(np.frombuffer(raw, np.uint8))


def test_a_shape_whose_size_overflows_is_refused():
    payload = _encoded({"x": np.zeros(4, np.float64)})
    entry = list(tensors._ENTRY.unpack_from(payload.data, tensors._HEADER.size))
    entry[2] = 3
    entry[6:9] = [1 << 32, 1 << 32, 4]
    tensors._ENTRY.pack_into(payload.data, tensors._HEADER.size, *entry)
    with pytest.raises(TensorError, match="shape"):
        tensors.decode(payload)
