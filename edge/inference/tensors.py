"""What a model takes and gives, and how a call's tensors are made to fit. Pure; the same for every backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from belvedere.graph import ImageInput
from edge.inference.errors import InvalidInput, ModelInvalid

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

    @property
    def is_fixed(self) -> bool:
        """Every size is known."""
        return not self.rank_free and None not in self.shape

    @property
    def nbytes(self) -> int:
        """Of one; sizes that are open count as 1."""
        return math.prod(size or 1 for size in self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        shape = "any shape" if self.rank_free else f"({', '.join('?' if n is None else str(n) for n in self.shape)})"
        return f"`{self.name}` {self.dtype} {shape}"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input as a model's descriptor has it."""

    name: str
    shape: tuple[int, ...]
    """-1: any size."""
    dtype: str = ""
    image: ImageInput | None = None
    """How a picture is made to fit; None: as the descriptor says nothing of it."""


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


# What framelink carries in one call, or in its answer.
TENSORS_BYTES_MAX = 512 << 20


def check_sizes(infos: Sequence[TensorInfo], what: str) -> None:
    """Raises ModelInvalid for tensors too large for any call."""
    sizes = [info.nbytes for info in infos]
    if sum(sizes) > TENSORS_BYTES_MAX:
        largest = infos[sizes.index(max(sizes))]
        raise ModelInvalid(
            f"the model's {what} take {sum(sizes) / (1 << 30):.1f} GiB of memory ({largest} alone "
            f"{max(sizes) / (1 << 30):.1f} GiB), a call at most {TENSORS_BYTES_MAX >> 20} MiB; "
            "give its descriptor a smaller shape, or export it with smaller ones"
        )


def matching(specs: Sequence[InputSpec], infos: Sequence[TensorInfo]) -> dict[str, InputSpec]:
    """Name of each of the model's inputs → the descriptor's, where it has one.

    Raises ModelInvalid where the descriptor names an input that is not there, or a shape that does not fit.
    """
    names = aliases(infos, specs)
    found = {}
    for spec in specs:
        info = names.get(plain(spec.name))
        if info is None:
            takes = ", ".join(map(str, infos))
            raise ModelInvalid(f"the descriptor's input `{spec.name}` is not in the model, which takes {takes}")
        if spec.shape and not info.rank_free:
            fits = len(spec.shape) == len(info.shape) and all(
                want in (-1, size) or size is None for want, size in zip(spec.shape, info.shape, strict=True)
            )
            if not fits:
                raise ModelInvalid(
                    f"the descriptor gives input `{spec.name}` the shape {spec.shape}, the model takes {info}"
                )
        found[info.name] = spec
    return found


def fixed(info: TensorInfo, spec: InputSpec | None) -> TensorInfo:
    """What the input takes with its open sizes fixed to the descriptor's."""
    if spec is None or not spec.shape:
        return info
    own = (None,) * len(spec.shape) if info.rank_free else info.shape
    shape = tuple(
        size if size is not None else (None if want == -1 else want) for size, want in zip(own, spec.shape, strict=True)
    )
    return TensorInfo(info.name, shape, info.dtype)


def is_batchable(infos: Sequence[TensorInfo], wanted: Sequence[TensorInfo]) -> bool:
    """Several calls may be computed at once: the file leaves every input's first size open, and none is open any more
    with the descriptor's.
    """
    return all(
        (info.rank_free or (len(info.shape) > 0 and info.shape[0] is None)) and one.is_fixed and len(one.shape) > 0
        for info, one in zip(infos, wanted, strict=True)
    )


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
    hint = ""
    if array.ndim >= 3:
        for moved, order in ((np.moveaxis(array, -1, -3), "last"), (np.moveaxis(array, -3, -1), "first")):
            if _fits(moved.shape, info.shape) or _fits((1, *moved.shape), info.shape):
                hint = f"; its channels come {order}, the model's do not: np.moveaxis"
    raise InvalidInput(f"shape {tuple(array.shape)} does not fit: the model takes {info}{hint}")


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
