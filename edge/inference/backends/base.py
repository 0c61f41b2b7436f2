"""The seam between the models' keeper and what computes them.

A backend gets tensors that fit already (`edge.inference.tensors.fit`) and must not know framelink, clients or queues.
Its tests subclass `tests/edge/inference/contract.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.inference.tensors import Array, InputSpec, TensorInfo


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a model is computed."""

    threads: int = 0
    """CPU threads of one computation; 0: as many as there are cores."""
    parallel: int = 1
    """Computations side by side."""
    batch: int = 1
    """Calls in one computation, at most."""
    alone: bool = False
    """Loaded a second time for a computation that has none beside it: with all cores (`edge.inference.twice`; backends do
    not see it).
    """

    def __str__(self) -> str:
        threads = f"{self.threads} threads" if self.threads else "all cores"
        lone = "; a lone one all cores" if self.alone else ""
        return f"batch {self.batch}, {self.parallel} in parallel, {threads}{lone}"


class Session(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        """What one call takes, in the model's own order."""

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        """What one call gives, in the model's own order; names without TensorFlow's `:0`."""

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute once. `inputs`: all of them, by name, in shape and type; of several calls (at most `Tuning.batch`) one
        behind the other along the first axis. Gives own copies, in the order of `outputs`.

        May be called from several threads at once. Raises InvalidInput where sizes that the model leaves open
        contradict each other, and whatever the library raises for a fault in it.
        """

    def close(self) -> None:
        """Let the memory go. No call is running, none comes after."""


class Prepared(Protocol):
    """A model that was read and checked, to be computed in one way or another."""

    @property
    def device(self) -> str:
        """What computes it, for logs, and for the key of what was measured on it."""

    @property
    def batchable(self) -> bool:
        """The file leaves the size of the first axis of every input open, and all other sizes are known."""

    @property
    def notes(self) -> Sequence[str]:
        """What its owner should know: a precision that this device does not compute in, for instance."""

    def session(self, tuning: Tuning) -> Session:
        """Ready to compute. Raises ModelInvalid, ModelUnsupported."""


class Backend(Protocol):
    """Reads models."""

    @property
    def name(self) -> str:
        """For logs and messages."""

    @property
    def version(self) -> str:
        """Of the library: what was cached or measured with another one does not hold."""

    def prepare(self, path: Path, *, key: str, framework: str, precision: str, inputs: Sequence[InputSpec]) -> Prepared:
        """Read the model in the file at `path`.

        `key` names it for ever (digest, precision, inputs): the cache goes by it. `framework` is the descriptor's (ONNX,
        TENSORFLOW, PYTORCH, …), a hint: the content decides. `precision`: FP32, FP16 or INT8. `inputs`: the
        descriptor's; the model is fixed to their shapes where it leaves them open. Raises ModelInvalid,
        ModelUnsupported. May be called from several threads at once.
        """
