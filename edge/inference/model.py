"""One model: loading, then ready or failed; its calls wait in its queue and are computed, several at once where that
pays, by its threads.

Must not know sockets, the bus, or which library computes. A call comes as a `Call` (framelink's Request is one), and
is answered exactly once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from belvedere.chassis.logs import get_logger
from belvedere.graph import ImageInput
from edge.inference import pictures
from edge.inference.backends.base import Session
from edge.inference.errors import DeviceLost, FrameGone, InvalidInput, ModelError
from edge.inference.figures import Figures
from edge.inference.frames import FrameSource
from edge.inference.queue import Demand, FairQueue, QueueClosed, QueueFull
from edge.inference.settings import Settings
from edge.inference.tensors import Array, InputSpec, TensorInfo, aliases, fit
from edge.inference.trial import Outcome
from edge.inference.watch import Watch

log = get_logger(__name__)

# Of so many answers at first, and then of each so-manieth, it is looked whether they are numbers.
NAN_FIRST, NAN_EVERY = 100, 100


class Call(Protocol):
    """One call of a client."""

    @property
    def client(self) -> str: ...
    @property
    def model_id(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Array]: ...
    @property
    def pictures(self) -> Mapping[str, Any]: ...
    @property
    def deadline_ns(self) -> int: ...
    def reply(self, outputs: Mapping[str, Array]) -> object: ...
    def fail(self, code: str, message: str) -> object: ...


@dataclass(frozen=True, slots=True)
class WantedModel:
    """One model of `inference.apply`."""

    model_id: str
    path: Path
    framework: str
    precision: str
    inputs: tuple[InputSpec, ...]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> WantedModel:
        """Raises ValueError, naming the field, for a row that is none."""
        for name in ("model_id", "path"):
            if not isinstance(row.get(name), str) or not row[name]:
                raise ValueError(f"models[].{name}: must be a string that is not empty")
        specs = []
        for spec in row.get("inputs") or []:
            shape = (spec.get("shape") or []) if isinstance(spec, dict) else None
            if (
                not isinstance(shape, list)
                or not isinstance(spec.get("name"), str)
                or not all(isinstance(size, int) and (size > 0 or size == -1) for size in shape)
            ):
                raise ValueError("models[].inputs[]: must have a name, and a shape of positive whole numbers, or -1")
            try:
                image = None if spec.get("image") is None else ImageInput.from_plain(spec["image"])
            except ValueError as error:
                raise ValueError(f"models[].inputs[].image: {error}") from error
            specs.append(InputSpec(spec["name"], tuple(shape), str(spec.get("dtype") or ""), image))
        return cls(
            row["model_id"],
            Path(row["path"]),
            str(row.get("framework") or ""),
            str(row.get("precision") or "FP32"),
            tuple(specs),
        )


@dataclass(frozen=True, slots=True)
class _Waiting:
    call: Call
    since: float


@dataclass(frozen=True, slots=True)
class _Ready:
    """A call whose inputs fit."""

    call: Call
    since: float
    inputs: dict[str, Array]


class Model:
    """See the module's first lines. `submit` from any thread."""

    def __init__(self, wanted: WantedModel, settings: Settings, frames: FrameSource, watch: Watch) -> None:
        self.wanted = wanted
        self.state = "loading"
        self.reason: ModelError | None = None
        self.signature = signature(wanted.path)
        self._settings = settings
        self._frames = frames
        self._watch = watch
        self._session: Session | None = None
        self._names: Mapping[str, TensorInfo] = {}
        self._images: Mapping[str, ImageInput] = {}
        self._outcome: Outcome | None = None
        self._backend = ""
        self._limit_s = settings.hang_min_s
        self._delay_s = 0.0
        self._queue: FairQueue[_Waiting] = FairQueue(settings.queue_per_client)
        self._demand = Demand()
        self._gathering = threading.Lock()
        self._gathered: Sequence[_Ready] = ()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._looked_at = 0
        self._gives_nan = False
        self._figures = Figures()

    def submit(self, call: Call, client: str) -> None:
        """Have the call computed, or refuse it. Never waits."""
        failed = self.reason
        if failed is not None:
            self._refuse(call, "FAILED", f"the model could not be loaded: {failed}")
            return
        self._demand.began()
        try:
            self._queue.put(client, _Waiting(call, time.monotonic()))
            return
        except QueueFull:
            limit = self._settings.queue_per_client
            why = ("OVERLOADED", f"{limit} calls of this client wait already; wait for an answer before the next")
        except QueueClosed:
            # Between the question above and here it has failed, or has been taken back.
            if self.reason is not None:
                why = ("FAILED", f"the model could not be loaded: {self.reason}")
            else:
                why = ("UNKNOWN_MODEL", "the model is not wanted on this appliance any more")
        self._demand.ended()
        self._refuse(call, *why)

    def loaded(self, session: Session, outcome: Outcome, backend: str) -> None:
        """It can be called from now on."""
        self._session = session
        self._outcome = outcome
        self._backend = backend
        self._names = aliases(session.inputs, self.wanted.inputs)
        self._images = _images(self._names, self.wanted.inputs)
        infer_s = (outcome.infer_ms or 0.0) / 1e3
        self._limit_s = self._settings.hang_min_s + self._settings.hang_factor * infer_s
        self._delay_s = min(self._settings.batch_delay_ms / 1e3, infer_s / 2)
        if outcome.gives_nan:
            self._say_nan("measured with random numbers")
        # One more than compute at once: it gets the next inputs ready meanwhile, and begins at once when a place is free.
        # All of them known before the first starts: the last one to end closes the session.
        self._threads = [
            threading.Thread(target=self._work, args=(session,), name=f"model-{number}", daemon=True)
            for number in range(outcome.tuning.parallel + 1)
        ]
        self._queue.free(outcome.tuning.parallel)
        self.state = "ready"
        for thread in tuple(self._threads):
            thread.start()

    def failed(self, error: ModelError) -> None:
        """It cannot be loaded; what waits for it is told so."""
        self.reason = error
        self.state = "failed"
        for waiting in self._queue.close():
            self._refuse(waiting.call, "FAILED", f"the model could not be loaded: {error}")

    def refuse_late(self) -> None:
        """While it loads: answer those that have waited long enough."""
        if self.state != "loading":
            return
        oldest = time.monotonic() - self._settings.load_wait_s
        late = self._queue.take_if(lambda waiting: waiting.since < oldest)
        self._demand.ended(len(late))
        for waiting in late:
            self._refuse(
                waiting.call,
                "LOADING",
                f"the model is still being loaded after {self._settings.load_wait_s:g} s; call again",
            )

    def close(self) -> None:
        """Refuse what waits; calls under way are finished by their thread, the last of which lets the model go."""
        for waiting in self._queue.close():
            self._refuse(waiting.call, "UNKNOWN_MODEL", "the model is not wanted on this appliance any more")

    def row(self) -> dict[str, Any]:
        """Its row in `inference.status`."""
        gathered = tuple(self._gathered)
        ages = [one.since for one in gathered[:1]]
        if (oldest := self._queue.oldest(lambda waiting: waiting.since)) is not None:
            ages.append(oldest)
        outcome = self._outcome
        return {
            "model_id": self.wanted.model_id,
            "state": self.state,
            "reason": None if self.reason is None else {"code": str(self.reason.code), "message": str(self.reason)},
            **self._figures.row(),
            "queued": len(self._queue) + len(gathered),
            "queue_age_ms": round((time.monotonic() - min(ages)) * 1e3, 1) if ages else None,
            "backend": self._backend or None,
            "batch": outcome.tuning.batch if outcome else None,
            "gives_nan": self._gives_nan,
        }

    def _work(self, session: Session) -> None:
        try:
            while True:
                with self._gathering:
                    ready = self._gather()
                self._answer(session, ready)
                self._demand.ended(len(ready))
                # Not held until the next one comes: a call holds its client's memory.
                del ready
        except QueueClosed:
            with self._lock:
                self._threads.remove(threading.current_thread())
                last = not self._threads
            if last:
                session.close()
                self._session = None

    def _gather(self) -> Sequence[_Ready]:
        """What is computed next, its inputs made fit while others are computed; with a place to compute it at."""
        assert self._outcome is not None
        most = self._outcome.tuning.batch
        ready: list[_Ready] = []
        self._gathered = ready
        until = 0.0
        while waiting := self._queue.gather(len(ready), most, until, self._demand.lately):
            for one in waiting:
                fitted = self._fitted(one)
                if fitted is None:
                    self._demand.ended()
                else:
                    ready.append(fitted)
            if ready:
                until = ready[0].since + self._delay_s
        self._gathered = ()
        return ready

    def _answer(self, session: Session, gathered: Sequence[_Ready]) -> None:
        now = time.monotonic()
        self._figures.waited([(now - one.since) * 1e3 for one in gathered])
        try:
            with self._watch.over(self.wanted.model_id, self._limit_s, [one.call for one in gathered]):
                ready = [one for one in gathered if not self._late(one.call)]
                answers = self._computed(session, ready) if ready else []
        finally:
            self._queue.free()
        for one, outputs in zip(ready, answers, strict=True):
            if outputs is not None:
                self._figures.carried(_bytes(one.inputs), _bytes(outputs))
                self._reply(one.call, outputs)

    def _late(self, call: Call) -> bool:
        """Its time is over; then it was refused."""
        if time.monotonic_ns() <= call.deadline_ns:
            return False
        self._refuse(call, "OVERLOADED", "the call waited longer than its time limit")
        return True

    def _fitted(self, waiting: _Waiting) -> _Ready | None:
        """Its inputs as the model takes them. None where it was refused instead."""
        call = waiting.call
        if self._late(call):
            return None
        try:
            given = dict(call.inputs)
            if call.pictures:
                began = time.perf_counter()
                given.update(self._from_pictures(call.pictures))
                self._figures.prepared((time.perf_counter() - began) * 1e3)
            return _Ready(call, waiting.since, fit(given, self._names))
        except FrameGone as error:
            self._refuse(call, "FRAME_GONE", str(error))
        except InvalidInput as error:
            self._refuse(call, "INVALID_INPUT", str(error))
        except Exception as error:
            # No memory for a copy, a picture that OpenCV cannot take: this call's end, never that of the model's thread.
            log.exception("inputs cannot be made fit", model_id=self.wanted.model_id, client=call.client)
            self._refuse(call, "FAILED", f"the inputs cannot be made fit: {type(error).__name__}: {error}"[:500])
        return None

    def _from_pictures(self, given: Mapping[str, Any]) -> dict[str, Array]:
        tensors = {}
        for name, picture in given.items():
            info = pictures.input_of(name, self._names)
            image = self._images.get(info.name, pictures.AS_IT_IS)
            if isinstance(picture, np.ndarray):
                tensors[info.name] = pictures.tensor(picture, info, image)
            else:
                with self._frames.pixels(picture) as pixels:
                    tensors[info.name] = pictures.tensor(pixels, info, image)
        return tensors

    def _computed(self, session: Session, ready: Sequence[_Ready]) -> Sequence[Mapping[str, Array] | None]:
        """The outputs of each; all at once, and one by one where that fails, so that only those fail that cannot be
        computed: they are refused, and have none.
        """
        if len(ready) == 1:
            return [self._compute_one(session, ready[0])]
        began = time.perf_counter()
        try:
            stacked = {name: np.concatenate([one.inputs[name] for one in ready]) for name in ready[0].inputs}
            outputs = session.infer(stacked)
            rows = {name: len(array) // len(ready) for name, array in outputs.items()}
        except Exception as error:  # noqa: BLE001 - whatever a library raises; then one by one
            log.warning(
                "batch failed: its calls are computed one by one",
                model_id=self.wanted.model_id,
                calls=len(ready),
                error=f"{type(error).__name__}: {error}"[:300],
            )
            return [self._compute_one(session, one) for one in ready]
        self._figures.computed(len(ready), (time.perf_counter() - began) * 1e3)
        return [
            {name: array[number * rows[name] : (number + 1) * rows[name]] for name, array in outputs.items()}
            for number in range(len(ready))
        ]

    def _compute_one(self, session: Session, one: _Ready) -> Mapping[str, Array] | None:
        began = time.perf_counter()
        try:
            outputs = session.infer(one.inputs)
        except InvalidInput as error:
            self._refuse(one.call, "INVALID_INPUT", str(error))
            return None
        except DeviceLost as error:
            log.error("device lost: the process ends", model_id=self.wanted.model_id, error=str(error))
            self._refuse(one.call, "FAILED", f"{error}; it is replaced, call again in a while")
            self._watch.lost()
            return None
        except Exception as error:
            log.exception("call failed", model_id=self.wanted.model_id, client=one.call.client)
            self._refuse(one.call, "FAILED", f"the model failed on these inputs: {type(error).__name__}: {error}"[:500])
            return None
        self._figures.computed(1, (time.perf_counter() - began) * 1e3)
        return outputs

    def _reply(self, call: Call, outputs: Mapping[str, Array]) -> None:
        if not self._gives_nan:
            self._looked_at += 1
            if self._looked_at <= NAN_FIRST or self._looked_at % NAN_EVERY == 0:
                for name, array in outputs.items():
                    if array.dtype.kind == "f" and np.isnan(array).any():
                        self._say_nan(f"output `{name}`")
                        break
        try:
            call.reply(outputs)
        except Exception as error:
            log.exception("answer cannot be sent", model_id=self.wanted.model_id, client=call.client)
            self._refuse(call, "FAILED", f"the answer cannot be sent: {type(error).__name__}: {error}"[:500])

    def _say_nan(self, where: str) -> None:
        """Once. The answers go to the application as they are: what they mean is its to say."""
        self._gives_nan = True
        log.warning(
            "model gives NaN: its weights may be damaged, or its inputs outside of what it was made for",
            model_id=self.wanted.model_id,
            where=where,
        )

    def _refuse(self, call: Call, code: str, message: str) -> None:
        self._figures.refused(code)
        call.fail(code, message)


def _bytes(tensors: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in tensors.values())


def _images(names: Mapping[str, TensorInfo], specs: Sequence[InputSpec]) -> dict[str, ImageInput]:
    found = {}
    for spec in specs:
        info = names.get(spec.name) or names.get(spec.name.removesuffix(":0"))
        if info is not None and spec.image is not None:
            found[info.name] = spec.image
    return found


def signature(path: Path) -> tuple[int, int] | None:
    """What tells a file that was changed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
