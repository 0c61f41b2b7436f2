"""The seam between the models' keeper and what computes them.

A backend gets tensors that fit already (`edge.inference.tensors.fit`) and must not know framelink, clients or queues.
Its tests subclass `tests/edge/inference/contract.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edge.inference.tensors import Array, InputSpec, TensorInfo


class Session(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> Sequence[TensorInfo]:
        """What it takes, in the model's own order."""

    @property
    def outputs(self) -> Sequence[TensorInfo]:
        """What it gives, in the model's own order; names without TensorFlow's `:0`."""

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute once. `inputs`: all of them, by name, in shape and type. Gives own copies, in the order of `outputs`.

        May be called from several threads at once. Raises InvalidInput where sizes that the model leaves open
        contradict each other, and whatever the library raises for a fault in it.
        """

    def close(self) -> None:
        """Let the memory go. No call is running, none comes after."""


class Backend(Protocol):
    """Loads models."""

    @property
    def name(self) -> str:
        """For logs and messages."""

    def load(self, path: Path, *, key: str, framework: str, precision: str, inputs: Sequence[InputSpec]) -> Session:
        """Load the model in the file at `path`.

        `key` names it for ever (digest and precision): the cache goes by it. `framework` is the descriptor's (ONNX,
        TENSORFLOW, PYTORCH, …), a hint: the content decides. `precision`: FP32, FP16 or INT8. `inputs`: the
        descriptor's; the model is fixed to their shapes where it leaves them open. Raises ModelInvalid,
        ModelUnsupported. May be called from several threads at once.
        """
