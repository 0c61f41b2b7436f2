"""What a model takes and gives, and how a call's tensors are made to fit. Pure; the same for every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.inference.errors import InvalidInput

Array = npt.NDArray[Any]
_NUMBERS = "biuf"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output. `shape`: None where any size goes. `rank_free`: not even the number of dimensions is
    known.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    rank_free: bool = False

    def __str__(self) -> str:
        shape = "any shape" if self.rank_free else f"({', '.join('?' if n is None else str(n) for n in self.shape)})"
        return f"`{self.name}` {self.dtype} {shape}"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input as a model's descriptor has it."""

    name: str
    shape: tuple[int, ...]
    dtype: str = ""


def plain(name: str) -> str:
    """A tensor's name without TensorFlow's output number: `image_tensor:0` and `image_tensor` are the same to a
    user.
    """
    return name.removesuffix(":0")


def aliases(infos: Sequence[TensorInfo], specs: Sequence[InputSpec]) -> dict[str, TensorInfo]:
    """Every name under which an input may be given: its own, and the descriptor's where that is another one.

    A descriptor may name an input freely where the model's file has no names of its own (PyTorch); with one input on
    each side there is only one meaning.
    """
    names = {plain(info.name): info for info in infos}
    if len(infos) == 1 and len(specs) == 1:
        names.setdefault(plain(specs[0].name), infos[0])
    return names


def fit(given: Mapping[str, Array], names: Mapping[str, TensorInfo]) -> dict[str, Array]:
    """The tensors under the model's own names, in its shapes and types.

    Numbers are cast (into whole numbers: rounded towards zero, kept within the type's range); a missing batch
    dimension of 1 is added. Raises InvalidInput, naming what the model takes.
    """
    fitted: dict[str, Array] = {}
    for name, array in given.items():
        info = names.get(plain(name))
        if info is None:
            raise InvalidInput(f"there is no input `{name}`; the model takes {_list(names)}")
        fitted[info.name] = _cast(_shaped(array, info), info)
    missing = [info for info in dict.fromkeys(names.values()) if info.name not in fitted]
    if missing:
        raise InvalidInput(f"missing: {', '.join(map(str, missing))}; the model takes {_list(names)}")
    return fitted


def _shaped(array: Array, info: TensorInfo) -> Array:
    if info.rank_free or _fits(array.shape, info.shape):
        return array
    if info.shape and info.shape[0] in (1, None) and _fits(array.shape, info.shape[1:]):
        return array[np.newaxis]
    raise InvalidInput(f"shape {tuple(array.shape)} does not fit: the model takes {info}")


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want is None or have == want for have, want in zip(shape, wanted, strict=True)
    )


def _cast(array: Array, info: TensorInfo) -> Array:
    if array.dtype == info.dtype:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in _NUMBERS or info.dtype.kind not in _NUMBERS:
        raise InvalidInput(f"numbers of type {array.dtype} do not fit: the model takes {info}")
    if info.dtype.kind in "iu" and array.dtype.kind == "f":
        # What a float beyond an integer's range becomes is undefined in C, and differs between machines.
        limits = np.iinfo(info.dtype)
        array = np.nan_to_num(np.clip(array, limits.min, limits.max), nan=0.0)
    return np.ascontiguousarray(array, dtype=info.dtype)


def _list(names: Mapping[str, TensorInfo]) -> str:
    return ", ".join(map(str, dict.fromkeys(names.values()))) or "no inputs"
