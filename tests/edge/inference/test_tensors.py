import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.inference.errors import InvalidInput
from edge.inference.tensors import InputSpec, TensorInfo, aliases, fit

IMAGE = TensorInfo("image_tensor", (1, 2, 2, 3), np.dtype("uint8"))
OPEN = TensorInfo("x", (None, 3), np.dtype("float32"))
ONE = aliases([IMAGE], [])


def image(dtype: str = "uint8", shape: tuple[int, ...] = (1, 2, 2, 3)) -> np.ndarray:
    return np.full(shape, 7, dtype)


@pytest.mark.parametrize("name", ["image_tensor", "image_tensor:0"])
def test_a_tensorflow_name_fits_with_and_without_its_number(name: str) -> None:
    assert list(fit({name: image()}, ONE)) == ["image_tensor"]


def test_the_descriptors_name_fits_where_there_is_one_input() -> None:
    names = aliases([IMAGE], [InputSpec("data", (1, 2, 2, 3))])
    assert list(fit({"data": image()}, names)) == ["image_tensor"]
    assert list(fit({"image_tensor": image()}, names)) == ["image_tensor"]


def test_a_missing_batch_dimension_is_added() -> None:
    assert fit({"image_tensor": image(shape=(2, 2, 3))}, ONE)["image_tensor"].shape == (1, 2, 2, 3)
    assert fit({"x": np.zeros(3)}, aliases([OPEN], []))["x"].shape == (1, 3)


def test_open_sizes_take_any_size() -> None:
    assert fit({"x": np.zeros((5, 3))}, aliases([OPEN], []))["x"].shape == (5, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16", "bool"])
def test_numbers_are_cast_to_the_models_type(dtype: str) -> None:
    fitted = fit({"image_tensor": image(dtype)}, ONE)["image_tensor"]
    assert fitted.dtype == np.uint8
    assert (fitted == np.array(7).astype(dtype)).all()


def test_numbers_beyond_the_models_range_stay_at_its_ends() -> None:
    given_values = np.array([-3.7, 0.9, 254.9, 300.0, np.nan, np.inf, -np.inf, 1e30, 0, 0, 0, 0]).reshape(1, 2, 2, 3)
    fitted = fit({"image_tensor": given_values}, ONE)["image_tensor"]
    assert fitted.ravel()[:8].tolist() == [0, 0, 254, 255, 0, 255, 0, 255]


def test_wrong_names_are_told_what_the_model_takes() -> None:
    with pytest.raises(InvalidInput, match=r"no input `images`; the model takes `image_tensor` uint8 \(1, 2, 2, 3\)"):
        fit({"images": image()}, ONE)
    with pytest.raises(InvalidInput, match=r"missing: `x` float32 \(\?, 3\)"):
        fit({"image_tensor": image()}, aliases([IMAGE, OPEN], []))


@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (2, 2, 2, 3), (2, 2), (1, 1, 2, 2, 3), (), (2, 3)])
def test_wrong_shapes_are_told_what_the_model_takes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"the model takes `image_tensor` uint8 \(1, 2, 2, 3\)"):
        fit({"image_tensor": image(shape=shape)}, ONE)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidInput, match="complex64 do not fit"):
        fit({"image_tensor": image("complex64")}, ONE)


@given(
    st.dictionaries(
        st.sampled_from(["x", "x:0", "image_tensor", "", "other"]),
        hnp.arrays(
            st.sampled_from([np.dtype(name) for name in ("float32", "float16", "int8", "uint64", "bool", "complex64")]),
            hnp.array_shapes(min_dims=0, max_dims=5, max_side=4),
        ),
    )
)
def test_no_tensors_crash_it(given_tensors: dict[str, np.ndarray]) -> None:
    try:
        fitted = fit(given_tensors, aliases([OPEN], []))
    except InvalidInput:
        return
    assert fitted["x"].dtype == np.float32 and fitted["x"].shape[1:] == (3,)
