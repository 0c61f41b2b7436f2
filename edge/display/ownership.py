"""Who has the screen: there is one, and any number of applications. Pure.

The last application started has it, from its first picture on. When that one ends, or has given no picture for `hold_s`, the
last started of those that give pictures has it, and gives it back as soon as a later one gives pictures again. Where nobody
gives any, it stays with the one that had it, whose placard says since when nothing comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One application that shows something."""

    instance_id: str
    picture_age_s: float | None
    """Of its last picture; None before the first."""


def owner(candidates: Sequence[Candidate], present: str | None, hold_s: float) -> str | None:
    """The instance that has the screen from now on; None where there is none. `candidates`: in the order of their start."""
    giving = [one.instance_id for one in candidates if one.picture_age_s is not None and one.picture_age_s < hold_s]
    if giving:
        return giving[-1]
    known = [one.instance_id for one in candidates]
    if present in known:
        return present
    return known[-1] if known else None
