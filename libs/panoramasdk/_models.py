"""`node.call`: tensors to a model and back, as forgiving as AWS's was.

Must not know: which engine runs the model, or where.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, ContextManager, Mapping

import numpy as np

from framelink import CallClient, CallError, CallTimeout, ServerGone
from panoramasdk._errors import ModelError, TimeoutException
from panoramasdk._media import media
from panoramasdk._spec import Model, Tensor

CALL_TIMEOUT_S = 300.0
"""Without a `time_out`: loading a model for the first time can take minutes (an engine is built), hanging must end."""
RETRY_S = (0.02, 0.5)
"""First and longest wait before a call is made again that found the model loading, the server restarting or too
busy.
"""


class Models:
    """The models that the node is connected to, by the names of their nodes."""

    def __init__(
        self,
        client: CallClient,
        models: Mapping[str, Model],
        called: Callable[[], None],
        using: Callable[[], ContextManager[None]],
    ) -> None:
        """`called` is told of each answer; `using()` is held as long as the application waits for one."""
        self._client = client
        self._using = using
        self._models = models
        self._called = called

    def call(self, inputs: Any, name: Any, time_out: float | None) -> tuple[Any, ...]:
        """See `node.call`."""
        if isinstance(inputs, str):
            inputs, name = name, inputs
        model = self._models.get(name)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise KeyError("the node is connected to no model %r; it has: %s" % (name, known))
        with self._using():
            return self._answer(name, model, _tensors(inputs, model.inputs), time_out)

    def _answer(self, name: str, model: Model, tensors: dict[str, Any], time_out: float | None) -> tuple[Any, ...]:
        allowed = CALL_TIMEOUT_S if time_out is None else max(0.0, time_out)
        deadline = time.monotonic() + allowed
        pause = threading.Event()
        wait = RETRY_S[0]
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                outputs = self._client.call(model.model_id, tensors, left)
                self._called()
                return tuple(outputs.values())
            except CallTimeout as error:
                raise TimeoutException("model %r gave no answer within %.3f s: %s" % (name, allowed, error)) from error
            except CallError as error:
                passing = isinstance(error, ServerGone) or error.code in ("LOADING", "OVERLOADED")
                if not passing or time.monotonic() + wait >= deadline:
                    if error.code == "LOADING":
                        raise TimeoutException("model %r is still loading: %s" % (name, error.message)) from error
                    raise ModelError(error.code, "model %r: %s" % (name, error.message)) from error
            pause.wait(wait)
            wait = min(wait * 2, RETRY_S[1])


def _tensors(inputs: Any, declared: tuple[Tensor, ...]) -> dict[str, Any]:
    """name → array of the declared type, with the batch dimension that is declared."""
    if isinstance(inputs, media):
        inputs = inputs.image
    if not isinstance(inputs, Mapping):
        if len(declared) > 1:
            names = ", ".join(tensor.name for tensor in declared)
            raise ValueError("the model has %d inputs (%s): give a dict of arrays" % (len(declared), names))
        inputs = {declared[0].name if declared else "input": inputs}
    if not declared:
        return {str(name): np.asarray(value) for name, value in inputs.items()}
    if len(declared) == 1 and len(inputs) == 1:
        # Framework names differ from the descriptor's in old assets; with one input there is nothing to confuse.
        return {declared[0].name: _fitted(next(iter(inputs.values())), declared[0])}
    missing = [tensor.name for tensor in declared if tensor.name not in inputs]
    if missing:
        raise ValueError("the model also needs the inputs %s; given: %s" % (missing, sorted(map(str, inputs))))
    return {tensor.name: _fitted(inputs[tensor.name], tensor) for tensor in declared}


def _fitted(value: Any, tensor: Tensor) -> Any:
    if isinstance(value, media):
        value = value.image
    array = np.asarray(value)
    if array.ndim == len(tensor.shape) - 1:
        array = array[np.newaxis]
    return array.astype(np.dtype(tensor.dtype), copy=False)
