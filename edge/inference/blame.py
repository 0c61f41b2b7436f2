"""Which model brings the process that computes all of them down, and when one has done so too often. Pure: time is handed in.

Who was alone at work when the process died, did it. Where several were, they are suspects, and work apart from then on: one
at a time, and never while a model is loaded; the next death names the one. Must not know processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from belvedere.fleet import ReasonCode

LOAD_CRASHES_MAX = 2
"""A model during whose loading the process ended this often is not loaded again: it would take the others with it each time."""
CRASHES_MAX = 3
"""The same for one that was computed when the process ended: once may have been the machine's fault, or one input's."""
HANGS_MAX = 3
"""A model that hung this often is not loaded again, until it is taken back and wanted anew."""
CALM_S = 600.0
"""After so long without a death suspects are none any more."""
IN_A_ROW_S = 3600.0
"""Deaths further apart than this are not one row."""


class Blame:
    """Deaths of one appliance's worker, and what follows from them."""

    def __init__(self) -> None:
        self._load_crashes: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()
        self._hangs: Counter[str] = Counter()
        self._last: dict[str, float] = {}
        self._how = ""
        self._apart: set[str] = set()
        self._died_at = 0.0

    @property
    def apart(self) -> Sequence[str]:
        """The suspects: computed one at a time."""
        return sorted(self._apart)

    def hung(self, model_id: str) -> None:
        """The process ended itself, since this model did not come back."""
        self._hangs[model_id] += 1

    def died(self, loading: str | None, computing: Iterable[str], how: str, now_s: float) -> Sequence[str]:
        """The process died (`how`: for people) with these at work; those that can have done it."""
        busy = sorted(set(computing) - {loading})
        self._how, self._died_at = how, now_s
        suspects = busy if loading is None else [loading, *busy]
        if len(suspects) > 1:
            self._apart.update(suspects)
        elif loading is not None:
            self._load_crashes[loading] += 1
        elif busy:
            [model_id] = busy
            if now_s - self._last.get(model_id, now_s) > IN_A_ROW_S:
                del self._crashes[model_id]
            self._crashes[model_id] += 1
            self._last[model_id] = now_s
            if self.given_up(model_id):
                self._apart.clear()
        return suspects

    def calm(self, now_s: float) -> bool:
        """Whether there are suspects no longer that were until now."""
        if not self._apart or now_s - self._died_at < CALM_S:
            return False
        self._apart.clear()
        return True

    def keep(self, wanted: Iterable[str]) -> None:
        """Only these are wanted: one that is taken back and asked for anew gets a fresh chance."""
        kept = set(wanted)
        for counted in (self._load_crashes, self._crashes, self._hangs):
            for model_id in [model_id for model_id in counted if model_id not in kept]:
                del counted[model_id]
        self._apart &= kept

    def given_up(self, model_id: str) -> tuple[ReasonCode, str] | None:
        """Why it is not loaded any more: the fleet's code and a sentence."""
        if self._load_crashes[model_id] >= LOAD_CRASHES_MAX:
            return (
                ReasonCode.MODEL_INVALID,
                "loading the model brought the inference process down each time; check its file, or export it anew",
            )
        if self._crashes[model_id] >= CRASHES_MAX:
            return (
                ReasonCode.APPLIANCE_ERROR,
                f"computing the model brought the inference process down {CRASHES_MAX} times in a row ({self._how}); "
                "check what it is given, export it anew, or try another backend, then deploy it again",
            )
        if self._hangs[model_id] >= HANGS_MAX:
            return (
                ReasonCode.APPLIANCE_ERROR,
                f"the model hung {HANGS_MAX} times while it was computed; check what it is given, or export it anew",
            )
        return None
