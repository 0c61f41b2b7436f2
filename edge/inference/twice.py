"""One model loaded twice, for who calls alone and for who calls in a crowd. Must not know calls or clients.

An application that asks for one answer after the other wants it soon: all cores for one computation. Where several ask at
once, computations side by side with fewer threads each take less of the CPU, since their threads do not wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge.inference.backends.base import Prepared, Session, Tuning
from edge.inference.tensors import Array, TensorInfo

# For so long after two computations ran at once others are expected beside the next one.
CROWDED_S = 0.1


class TwoSessions:
    """See `base.Session`. `alone` and `together` are the same model."""

    def __init__(self, alone: Session, together: Session) -> None:
        self._alone = alone
        self._together = together
        self._lock = threading.Lock()
        self._now = 0
        self._crowded_until = 0.0
        self.inputs: Sequence[TensorInfo] = together.inputs
        self.outputs: Sequence[TensorInfo] = together.outputs

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `base.Session.infer`."""
        now = time.monotonic()
        with self._lock:
            self._now += 1
            if self._now > 1:
                self._crowded_until = now + CROWDED_S
            session = self._together if now < self._crowded_until else self._alone
        try:
            return session.infer(inputs)
        finally:
            with self._lock:
                self._now -= 1

    def close(self) -> None:
        """See `base.Session.close`."""
        self._alone.close()
        self._together.close()


def session(prepared: Prepared, tuning: Tuning) -> Session:
    """As `prepared.session`, for tunings of both kinds."""
    if not tuning.alone:
        return prepared.session(tuning)
    together = replace(tuning, alone=False)
    return TwoSessions(prepared.session(replace(together, threads=0, parallel=1)), prepared.session(together))
