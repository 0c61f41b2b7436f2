"""B12's search for the number of cameras that a party holds, in as few tries as it takes: what a try has used of the cores says
where the next one should be. Knows no party.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

HELD = 0.95
"""The share of the answers that a camera must have."""
NEARLY = 0.80
"""A try that missed with more than this at its slowest camera may have met something else on the machine: it is made once
more."""
FULL = 0.98
"""Of the cores: what is aimed at."""
MOST = 24
"""Cameras tried at most."""


@dataclass(frozen=True)
class Outcome:
    """A try's."""

    least: float
    """Answers of the slowest camera, as a share of what was wanted."""
    cores: float
    """What the party and the cameras' server took, as a number of cores."""
    fault: str = ""
    """Why it is not held, whatever its answers."""

    @property
    def held(self) -> bool:
        return not self.fault and self.least >= HELD


Try = Callable[[int], Outcome]


def most_held(attempt: Try, cores: int, begin: int, lasts_s: float) -> tuple[int, int]:
    """(the most that was held, the least that was not): neighbours, but where the time was over before. No try begins after
    `lasts_s`; ValueError where `begin` is not between 1 and MOST.
    """
    if not 1 <= begin <= MOST:
        raise ValueError(f"begin with 1 to {MOST} cameras, not {begin}")
    until = time.monotonic() + lasts_s
    held, missed, count = 0, MOST + 1, begin
    once_more: int | None = None  # `missed` before the try that is made again
    while (once_more or missed - held > 1) and time.monotonic() < until:
        outcome = attempt(count)
        if not outcome.held and outcome.least >= NEARLY and once_more is None:
            once_more, missed = missed, count
            continue
        if outcome.held:
            held, missed = count, once_more or missed
            guess = int(count * FULL * cores / outcome.cores) if outcome.cores else count * 2
        else:
            missed = count
            guess = (held + missed) // 2 if held else int(count * min(outcome.least / HELD, FULL))
        once_more = None
        count = min(max(guess, held + 1), missed - 1)
    return held, missed
