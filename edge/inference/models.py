"""The models of the appliance: each loaded once, one after the other. Must not know sockets or the bus."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from belvedere.chassis.logs import get_logger
from belvedere.fleet import ReasonCode
from edge.inference import trial
from edge.inference.backends import Choice
from edge.inference.board import Board
from edge.inference.cores import core_count
from edge.inference.errors import DeviceLost, ModelError
from edge.inference.frames import FrameSource
from edge.inference.model import Call, Model, WantedModel, signature
from edge.inference.settings import Settings
from edge.inference.watch import Hung, Watch

log = get_logger(__name__)

# How often calls that wait for a model being loaded are looked through for those that have waited long enough.
TICK_S = 0.25
TRIALS = "trials.json"


class Models:
    """All of them. `apply` and `submit` from any thread; one thread loads, one model after the other.

    One at a time: loading takes all cores anyway, and the service can tell which file brought this process down.
    `lost()` is called, while the model that did it stands on the `board`, when what computes is of no more use in this process;
    `hung(model_id)` is called, after its calls were answered with an error, when a model does not come back: this process
    is of no more use then.
    """

    def __init__(
        self,
        choice: Choice,
        settings: Settings,
        changed: threading.Event,
        *,
        cache: Path,
        frames: FrameSource,
        hung: Callable[[str], None],
        board: Board | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._choice = choice
        self._settings = settings
        self._changed = changed
        self._frames = frames
        self._trials = trial.TrialMemory(cache / TRIALS)
        self._tell_hung = hung
        self._watch = Watch(self._hung, board, lost)
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
                    model = self._models[model_id] = Model(wanted_model, self._settings, self._frames, self._watch)
                    self._to_load.append(model)
            self._wake.notify_all()
        for model in ended:
            model.close()
        self._changed.set()

    def set_apart(self, model_ids: Sequence[str]) -> None:
        """These may bring the process down: one at a time, so that the next time tells which."""
        self._watch.set_apart(model_ids)

    def submit(self, call: Call, client: str | None = None) -> None:
        """Have one call answered, now or later. Never waits. `client`: who it is for certain, not as it says."""
        with self._lock:
            model = self._models.get(call.model_id)
        if model is None:
            call.fail("UNKNOWN_MODEL", f"there is no model `{call.model_id[:100]}` on this appliance")
            return
        model.submit(call, call.client if client is None else client)

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
        self._watch.close()
        for model in models:
            model.close()

    def _hung(self, hung: Hung) -> None:
        message = (
            f"the model has not answered within {hung.limit_s:.0f} s and is taken to be hung; the process that computes it "
            "is replaced, call again in a while"
        )
        log.error("model hung", model_id=hung.model_id, limit_s=round(hung.limit_s, 1), calls=len(hung.calls))
        for call in hung.calls:
            call.fail("FAILED", message)
        self._tell_hung(hung.model_id)

    def _load_all(self) -> None:
        while True:
            with self._lock:
                while not self._to_load and not self._stopped:
                    self._wake.wait()
                if self._stopped:
                    return
                model = self._to_load.popleft()
            ticking = threading.Event()
            ticker = threading.Thread(target=self._tick, args=(model, ticking), name="load-wait", daemon=True)
            ticker.start()
            with self._watch.loading(model.wanted.model_id):
                # Told only now: who hears of it and sees the process end must find it on the board.
                self._tell_loading(model)
                self._load(model)
                self._tell_loading(None)
            ticking.set()

    def _tell_loading(self, model: Model | None) -> None:
        with self._lock:
            self._loading = model
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
            backend, prepared, why = self._choice.prepare(
                wanted.path,
                key=wanted.model_id,
                framework=wanted.framework,
                precision=wanted.precision,
                inputs=wanted.inputs,
            )
            key = " ".join(
                (
                    wanted.model_id,
                    backend.name,
                    backend.version,
                    prepared.device,
                    self._settings_key(),
                    f"{core_count()} cores",
                )
            )
            small = wanted.path.stat().st_size <= self._settings.load_twice_mb * 1_000_000
            session, outcome = trial.run(prepared, self._settings, self._trials, key, may_load_twice=small)
        except ModelError as error:
            log.warning("model cannot be loaded", model_id=wanted.model_id, code=str(error.code), reason=str(error))
            model.failed(error)
            return
        except DeviceLost as error:
            log.error("device lost: the process ends", model_id=wanted.model_id, error=str(error))
            model.failed(_BackendFault(f"the model could not be loaded: {error}"))
            self._watch.lost()
            return
        except Exception as error:
            log.exception("backend failed", model_id=wanted.model_id)
            model.failed(_BackendFault(f"the model could not be loaded: {type(error).__name__}: {error}"[:500]))
            return
        log.info(
            "model ready",
            model_id=wanted.model_id,
            backend=backend.name,
            because=why,
            device=prepared.device,
            seconds=round(time.monotonic() - began, 2),
            chosen=str(outcome.tuning),
            measured=outcome.why,
            infer_ms=outcome.infer_ms,
            notes=list(prepared.notes),
            inputs=[str(info) for info in session.inputs],
            outputs=[str(info) for info in session.outputs],
        )
        model.loaded(session, outcome, backend.name)

    def _settings_key(self) -> str:
        one = self._settings
        return f"{trial.VERSION}/{one.threads}/{one.parallel_calls}/{one.batch_max}/{one.latency_max_ms}/{one.load_twice_mb}"


class _BackendFault(ModelError):
    """Neither the model's nor its user's fault, as far as can be told."""

    code = ReasonCode.APPLIANCE_ERROR


def _same(model: Model, wanted: WantedModel | None) -> bool:
    if wanted is None or model.wanted != wanted:
        return False
    return model.state != "failed" or model.signature == signature(wanted.path)
