"""What a benchmark says, and how it is shown.

A `Line` holds one measure of ours beside its peers' and its limit, all taken in the same run, turn by turn. Pure but for
`show` and `save`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = "limit"


@dataclass(frozen=True)
class Line:
    """One measure."""

    id: str
    """F1, B2: what ONLY= selects."""
    measure: str
    unit: str
    ours: float
    peers: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None
    """What nothing can beat here: a bare echo of the same bytes, a bare message."""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """Ours divided by the peer's, in `unit`: for a rate more is better, for a time less."""
    spread: float = 0.0
    """Of ours: the middle half of the rounds, as a share of their median."""
    reach: str = ""
    """The aim, in words; not in the JSON."""

    def plain(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "id": self.id,
            "measure": self.measure,
            "unit": self.unit,
            "ours": _rounded(self.ours),
            "peers": {name: _rounded(value) for name, value in self.peers.items()},
            "limit": None if self.limit is None else _rounded(self.limit),
            "ratios": {name: round(value, 3) for name, value in self.ratios.items()},
            "spread": round(self.spread, 3),
        }


@dataclass(frozen=True)
class Report:
    """What a benchmark gives back."""

    lines: Sequence[Line]
    notes: Sequence[str] = ()
    """What was left out, and why; what a reader should know of the run."""


def compared(
    id: str,
    measure: str,
    unit: str,
    rounds: Mapping[str, Sequence[float]],
    *,
    ours: str = "ours",
    reach: str = "",
) -> Line:
    """A line out of the values of each party, round by round; the ratios are medians of each round's own ratio, so that
    a machine that is slower in one round does not tilt them. The party named `limit` is the limit."""
    own = rounds[ours]
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(own, values, strict=True))
        for name, values in rounds.items()
        if name != ours
    }
    peers = {name: value for name, value in medians.items() if name not in (ours, LIMIT)}
    return Line(id, measure, unit, medians[ours], peers, medians.get(LIMIT), ratios, spread(own), reach)


def spread(values: Sequence[float]) -> float:
    """The distance of the quartiles as a share of the median; of fewer than four values, that of the extremes."""
    middle = statistics.median(values)
    if not middle:
        return 0.0
    if len(values) < 4:
        return (max(values) - min(values)) / middle
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / middle


def table(lines: Sequence[Line]) -> str:
    """For people."""
    head = ("id", "measure", "ours", "spread", "peers", "limit", "ratio", "reach")
    rows = [
        (
            line.id,
            line.measure,
            f"{_shown(line.ours)} {line.unit}",
            f"{line.spread:.0%}",
            ", ".join(f"{name} {_shown(value)}" for name, value in line.peers.items()),
            "" if line.limit is None else _shown(line.limit),
            ", ".join(f"{value:.2f}× {name}" for name, value in line.ratios.items()),
            line.reach,
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def save(path: Path, lines: Sequence[Line]) -> None:
    """The lines as a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([line.plain() for line in lines], indent=2, ensure_ascii=False) + "\n")


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
