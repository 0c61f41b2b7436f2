"""What is counted of a model, as `inference.status` says it. Thread-safe; must not know calls or models."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

# The last calls that the percentiles are of: a minute at ten calls a second.
TIMES_MAX = 600
CODES = ("FAILED", "FRAME_GONE", "INVALID_INPUT", "LOADING", "OVERLOADED")
"""What a call may be answered with: counted from 0 on, so that the first one of its kind shows as a rise."""


class Figures:
    """Counted since the model was loaded by this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._errors: Counter[str] = Counter(dict.fromkeys(CODES, 0))
        self._bytes_in = self._bytes_out = 0
        self._batches: Counter[int] = Counter()
        self._infer_ms: deque[float] = deque(maxlen=TIMES_MAX)
        self._queue_ms: deque[float] = deque(maxlen=TIMES_MAX)
        self._prepare_ms: deque[float] = deque(maxlen=TIMES_MAX)

    def computed(self, calls: int, took_ms: float) -> None:
        """One computation of so many calls."""
        with self._lock:
            self._calls += calls
            self._batches[calls] += 1
            self._infer_ms.append(took_ms)

    def waited(self, waits_ms: Sequence[float]) -> None:
        """How long each of these calls waited until its turn came."""
        with self._lock:
            self._queue_ms.extend(waits_ms)

    def prepared(self, took_ms: float) -> None:
        """A picture was made into an input."""
        with self._lock:
            self._prepare_ms.append(took_ms)

    def carried(self, bytes_in: int, bytes_out: int) -> None:
        """Inputs that were computed, as the model took them, and outputs that were answered."""
        with self._lock:
            self._bytes_in += bytes_in
            self._bytes_out += bytes_out

    def refused(self, code: str) -> None:
        """A call was answered with this error."""
        with self._lock:
            self._errors[code] += 1

    def row(self) -> dict[str, Any]:
        """Its part of a row in `inference.status`."""
        with self._lock:
            infer, queue, prepare = list(self._infer_ms), list(self._queue_ms), list(self._prepare_ms)
            calls, bytes_in, bytes_out = self._calls, self._bytes_in, self._bytes_out
            errors, batches = dict(sorted(self._errors.items())), dict(sorted(self._batches.items()))
        return {
            "calls": calls,
            "errors": sum(errors.values()),
            "errors_by_code": errors,
            "infer_ms": _percentiles(infer),
            "queue_ms": _percentiles(queue),
            "prepare_ms": _percentiles(prepare),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "batches": {str(size): count for size, count in batches.items()},
        }


def _percentiles(times: Sequence[float]) -> dict[str, float | None]:
    if not times:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
