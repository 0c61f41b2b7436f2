"""How long to wait before the next try: at once, then ever longer up to a bound, never in step with the others. Pure
but for the random source that it is given.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FIRST_S = 0.5
FACTOR = 2.0
# A quarter either way: a switch that reboots with forty cameras behind it is not asked by all of them in the same
# instant.
JITTER = 0.25


@dataclass(slots=True)
class Backoff:
    """The waits of one thing that is tried again and again.

    `next_s(max_s)` gives the seconds to wait before the next try: 0 the first time, then about `FIRST_S`, doubling, at
    most `max_s`. `reset` after success.
    """

    random: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def next_s(self, max_s: float, *, at_once: bool = True) -> float:
        """Seconds to wait; counts one failure. `at_once=False`: wait before the second try, too."""
        self.failures += 1
        if self.failures == 1 and at_once:
            return 0.0
        # The exponent is bounded: 2.0 ** 2000 is an OverflowError, and a camera can be away for a month.
        wait_s = FIRST_S * FACTOR ** min(max(0, self.failures - 2), 32)
        return float(min(max_s, wait_s) * self.random.uniform(1 - JITTER, 1.0))

    def reset(self) -> None:
        """The thing works: the next failure is a first one."""
        self.failures = 0
