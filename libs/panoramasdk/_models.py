"""`node.call`: tensors to a model and back, as forgiving as AWS's was.

A media goes by the name of its frame: the appliance reads the camera's ring itself, and resizes and normalises as the
model's descriptor says. Where the application has changed the picture, its pixels are sent, and treated the same.

Must not know: which engine runs the model, or where.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Mapping

import numpy as np

from framelink import CallClient, CallError, CallTimeout, FrameName, ServerGone
from panoramasdk._errors import ModelError, TimeoutException
from panoramasdk._media import media
from panoramasdk._spec import Model, Tensor

if TYPE_CHECKING:
    from panoramasdk._picture import Picture

CALL_TIMEOUT_S = 300.0
"""Without a `time_out`: loading a model for the first time can take minutes (an engine is built), hanging must end."""
RETRY_S = (0.02, 0.5)
"""First and longest wait before a call is made again that found the model loading, the server restarting or too
busy.
"""
HELD_MAX_S = 0.5
"""A frame is lent to a model that answered its last call within this. Slower ones, and those that have not answered yet,
get its pixels: a camera wants its slots back."""


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
        self._took_s: dict[str, float] = {}

    def call(self, inputs: Any, name: Any, time_out: float | None) -> tuple[Any, ...]:
        """See `node.call`."""
        if isinstance(inputs, str):
            inputs, name = name, inputs
        model = self._models.get(name)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise KeyError("the node is connected to no model %r; it has: %s" % (name, known))
        with self._using():
            return self._answer(name, model, *_tensors(inputs, model.inputs), time_out)

    def _answer(
        self, name: str, model: Model, tensors: dict[str, Any], medias: Mapping[str, media], time_out: float | None
    ) -> tuple[Any, ...]:
        allowed = CALL_TIMEOUT_S if time_out is None else max(0.0, time_out)
        deadline = time.monotonic() + allowed
        pause = threading.Event()
        wait = RETRY_S[0]
        lend = self._took_s.get(name, HELD_MAX_S) < HELD_MAX_S
        while True:
            began = time.monotonic()
            try:
                with _Lent(medias, lend) as pictures:
                    outputs = self._client.call(model.model_id, tensors, max(0.0, deadline - began), pictures)
                self._took_s[name] = time.monotonic() - began
                self._called()
                return tuple(outputs.values())
            except CallTimeout as error:
                raise TimeoutException("model %r gave no answer within %.3f s: %s" % (name, allowed, error)) from error
            except CallError as error:
                passing = isinstance(error, ServerGone) or error.code in ("LOADING", "OVERLOADED", "FRAME_GONE")
                if not passing or time.monotonic() + wait >= deadline:
                    if error.code == "LOADING":
                        raise TimeoutException("model %r is still loading: %s" % (name, error.message)) from error
                    raise ModelError(error.code, "model %r: %s" % (name, error.message)) from error
                again_at_once = lend and error.code == "FRAME_GONE"
                lend = False
                self._took_s.pop(name, None)
            if not again_at_once:
                pause.wait(wait)
                wait = min(wait * 2, RETRY_S[1])


class _Lent:
    """What is sent for each media: its frame's name, the frame lent until the block ends, or its pixels."""

    def __init__(self, medias: Mapping[str, media], lend: bool) -> None:
        self._medias = medias
        self._lend = lend
        self._lent: list[Picture] = []

    def __enter__(self) -> dict[str, Any]:
        return {name: self._sent(one) for name, one in self._medias.items()}

    def __exit__(self, *_: object) -> None:
        for picture in self._lent:
            picture.give_back()

    def _sent(self, one: media) -> Any:
        one._picture.looked_at()  # A model wants BGR, too.
        if not self._lend or not one._is_untouched():
            return one._pixels()
        frame = one._picture.lend()
        if frame is None:
            return one._pixels()
        self._lent.append(one._picture)
        if not frame.make_bgr():
            return one._pixels()
        return FrameName(one._picture.stream.camera_id, frame.ring_id, frame.slot, frame.info.sequence)


def _tensors(inputs: Any, declared: tuple[Tensor, ...]) -> tuple[dict[str, Any], dict[str, media]]:
    """name → array of the declared type, with the batch dimension that is declared; and name → media.

    Empty where the descriptor names no input: the model's only one.
    """
    if not isinstance(inputs, Mapping):
        if len(declared) > 1:
            names = ", ".join(tensor.name for tensor in declared)
            raise ValueError("the model has %d inputs (%s): give a dict of arrays" % (len(declared), names))
        unnamed = "" if isinstance(inputs, media) else "input"
        inputs = {declared[0].name if declared else unnamed: inputs}
    if not declared:
        return _apart({str(name): value for name, value in inputs.items()})
    if len(declared) == 1 and len(inputs) == 1:
        # Framework names differ from the descriptor's in old assets; with one input there is nothing to confuse.
        return _apart({declared[0].name: next(iter(inputs.values()))}, declared)
    missing = [tensor.name for tensor in declared if tensor.name not in inputs]
    if missing:
        raise ValueError("the model also needs the inputs %s; given: %s" % (missing, sorted(map(str, inputs))))
    return _apart({tensor.name: inputs[tensor.name] for tensor in declared}, declared)


def _apart(given: Mapping[str, Any], declared: tuple[Tensor, ...] = ()) -> tuple[dict[str, Any], dict[str, media]]:
    known = {tensor.name: tensor for tensor in declared}
    arrays = {name: _fitted(value, known.get(name)) for name, value in given.items() if not isinstance(value, media)}
    return arrays, {name: value for name, value in given.items() if isinstance(value, media)}


def _fitted(value: Any, tensor: Tensor | None) -> Any:
    array = np.asarray(value)
    if tensor is None:
        return array
    if array.ndim == len(tensor.shape) - 1:
        array = array[np.newaxis]
    return array.astype(np.dtype(tensor.dtype), copy=False)
