"""The models of the appliance: each loaded once, each with its own queue and threads.

Must not know sockets, the bus, or which library computes. A call comes as a `Call` (framelink's Request is one), and
is answered exactly once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from belvedere.chassis.logs import get_logger
from belvedere.fleet import ReasonCode
from edge.inference.backends.base import Backend, Session
from edge.inference.errors import InvalidInput, ModelError
from edge.inference.queue import FairQueue, QueueClosed, QueueFull
from edge.inference.settings import Settings
from edge.inference.tensors import Array, InputSpec, TensorInfo, aliases, fit

log = get_logger(__name__)

# The last calls that the percentiles are of: a minute at ten calls a second.
INFER_TIMES_MAX = 600
# How often calls that wait for a model being loaded are looked through for those that have waited long enough.
TICK_S = 0.25


class Call(Protocol):
    """One call of a client."""

    @property
    def client(self) -> str: ...
    @property
    def model_id(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Array]: ...
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
                or not all(isinstance(size, int) and size > 0 for size in shape)
            ):
                raise ValueError("models[].inputs[]: must have a name, and a shape of positive whole numbers")
            specs.append(InputSpec(spec["name"], tuple(shape), str(spec.get("dtype") or "")))
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


class Model:
    """One model: loading, then ready or failed; its calls wait in its queue and are computed by its threads."""

    def __init__(self, wanted: WantedModel, settings: Settings) -> None:
        self.wanted = wanted
        self.state = "loading"
        self.reason: ModelError | None = None
        self.signature = _signature(wanted.path)
        self._settings = settings
        self._session: Session | None = None
        self._names: Mapping[str, TensorInfo] = {}
        self._queue: FairQueue[_Waiting] = FairQueue(settings.queue_per_client)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._calls = self._errors = 0
        self._times_ms: deque[float] = deque(maxlen=INFER_TIMES_MAX)

    def submit(self, call: Call) -> None:
        """Have the call computed, or refuse it. Never waits."""
        failed = self.reason
        if failed is not None:
            self._refuse(call, "FAILED", f"the model could not be loaded: {failed}")
            return
        try:
            self._queue.put(call.client, _Waiting(call, time.monotonic()))
        except QueueFull:
            limit = self._settings.queue_per_client
            self._refuse(
                call, "OVERLOADED", f"{limit} calls of this client wait already; wait for an answer before the next"
            )
        except QueueClosed:
            # Between the question above and here it has failed, or has been taken back.
            if self.reason is not None:
                self._refuse(call, "FAILED", f"the model could not be loaded: {self.reason}")
            else:
                self._refuse(call, "UNKNOWN_MODEL", "the model is not wanted on this appliance any more")

    def loaded(self, session: Session) -> None:
        """It can be called from now on."""
        self._session = session
        self._names = aliases(session.inputs, self.wanted.inputs)
        count = max(1, self._settings.parallel_calls)
        # All of them known before the first starts: the last one to end closes the session.
        self._threads = [
            threading.Thread(target=self._work, args=(session,), name=f"model-{number}", daemon=True)
            for number in range(count)
        ]
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
        for waiting in self._queue.take_if(lambda waiting: waiting.since < oldest):
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
        with self._lock:
            times = np.fromiter(self._times_ms, float)
            calls, errors = self._calls, self._errors
        p50, p99 = np.percentile(times, [50, 99]) if times.size else (None, None)
        return {
            "model_id": self.wanted.model_id,
            "state": self.state,
            "reason": None if self.reason is None else {"code": str(self.reason.code), "message": str(self.reason)},
            "calls": calls,
            "errors": errors,
            "infer_ms": {
                "p50": None if p50 is None else round(float(p50), 3),
                "p99": None if p99 is None else round(float(p99), 3),
            },
        }

    def _work(self, session: Session) -> None:
        try:
            while True:
                waiting = self._queue.get()
                self._answer(session, waiting.call)
                # Not held until the next one comes: a call holds its client's memory.
                del waiting
        except QueueClosed:
            with self._lock:
                self._threads.remove(threading.current_thread())
                last = not self._threads
            if last:
                session.close()
                self._session = None

    def _answer(self, session: Session, call: Call) -> None:
        if time.monotonic_ns() > call.deadline_ns:
            self._refuse(call, "OVERLOADED", "the call waited longer than its time limit")
            return
        try:
            inputs = fit(call.inputs, self._names)
            began = time.perf_counter()
            outputs = session.infer(inputs)
            took_ms = (time.perf_counter() - began) * 1e3
        except InvalidInput as error:
            self._refuse(call, "INVALID_INPUT", str(error))
            return
        except Exception as error:
            log.exception("call failed", model_id=self.wanted.model_id, client=call.client)
            self._refuse(call, "FAILED", f"the model failed on these inputs: {type(error).__name__}: {error}"[:500])
            return
        with self._lock:
            self._calls += 1
            self._times_ms.append(took_ms)
        call.reply(outputs)

    def _refuse(self, call: Call, code: str, message: str) -> None:
        with self._lock:
            self._errors += 1
        call.fail(code, message)


class Models:
    """All of them. `apply` and `submit` from any thread; one thread loads, one model after the other.

    One at a time: loading takes all cores anyway, and the service can tell which file brought this process down.
    """

    def __init__(self, backend: Backend, settings: Settings, changed: threading.Event) -> None:
        self._backend = backend
        self._settings = settings
        self._changed = changed
        self._models: dict[str, Model] = {}
        self._lock = threading.Lock()
        self._to_load: deque[Model] = deque()
        self._wake = threading.Condition(self._lock)
        self._loading: Model | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._load_all, name="loader", daemon=True)
        self._thread.start()

    def apply(self, wanted: Sequence[WantedModel]) -> None:
        """Make the wanted set so. Models that are in it as before are left alone, but for failed ones whose file is
        another now.
        """
        by_id = {model.model_id: model for model in wanted}
        with self._lock:
            ended = [model for model in self._models.values() if not _same(model, by_id.get(model.wanted.model_id))]
            for model in ended:
                del self._models[model.wanted.model_id]
                if model in self._to_load:
                    self._to_load.remove(model)
            for model_id, wanted_model in by_id.items():
                if model_id not in self._models:
                    model = self._models[model_id] = Model(wanted_model, self._settings)
                    self._to_load.append(model)
            self._wake.notify_all()
        for model in ended:
            model.close()
        self._changed.set()

    def submit(self, call: Call) -> None:
        """Have one call answered, now or later. Never waits."""
        with self._lock:
            model = self._models.get(call.model_id)
        if model is None:
            call.fail("UNKNOWN_MODEL", f"there is no model `{call.model_id[:100]}` on this appliance")
            return
        model.submit(call)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `inference.status`."""
        with self._lock:
            models = [model for _, model in sorted(self._models.items())]
        return [model.row() for model in models]

    def loading(self) -> str | None:
        """The model that is being loaded at this moment."""
        with self._lock:
            return self._loading.wanted.model_id if self._loading is not None else None

    def close(self) -> None:
        """Refuse everything. A load under way is left to the end of the process."""
        with self._lock:
            self._stopped = True
            models = list(self._models.values())
            self._models.clear()
            self._to_load.clear()
            self._wake.notify_all()
        for model in models:
            model.close()

    def _load_all(self) -> None:
        while True:
            with self._lock:
                while not self._to_load and not self._stopped:
                    self._wake.wait()
                if self._stopped:
                    return
                model = self._loading = self._to_load.popleft()
            self._changed.set()
            ticking = threading.Event()
            ticker = threading.Thread(target=self._tick, args=(model, ticking), name="load-wait", daemon=True)
            ticker.start()
            self._load(model)
            ticking.set()
            with self._lock:
                self._loading = None
            self._changed.set()

    def _tick(self, model: Model, done: threading.Event) -> None:
        while not done.wait(TICK_S):
            with self._lock:
                waiting = [model, *self._to_load]
            for one in waiting:
                one.refuse_late()

    def _load(self, model: Model) -> None:
        wanted = model.wanted
        began = time.monotonic()
        try:
            session = self._backend.load(
                wanted.path,
                key=wanted.model_id,
                framework=wanted.framework,
                precision=wanted.precision,
                inputs=wanted.inputs,
            )
        except ModelError as error:
            log.warning("model cannot be loaded", model_id=wanted.model_id, code=str(error.code), reason=str(error))
            model.failed(error)
            return
        except Exception as error:
            log.exception("backend failed", model_id=wanted.model_id)
            model.failed(_BackendFault(f"the model could not be loaded: {type(error).__name__}: {error}"[:500]))
            return
        log.info(
            "model ready",
            model_id=wanted.model_id,
            backend=self._backend.name,
            seconds=round(time.monotonic() - began, 2),
            inputs=[str(info) for info in session.inputs],
            outputs=[str(info) for info in session.outputs],
        )
        model.loaded(session)


class _BackendFault(ModelError):
    """Neither the model's nor its user's fault, as far as can be told."""

    code = ReasonCode.APPLIANCE_ERROR


def _same(model: Model, wanted: WantedModel | None) -> bool:
    if model.wanted != wanted:
        return False
    return model.state != "failed" or model.signature == _signature(wanted.path)


def _signature(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
