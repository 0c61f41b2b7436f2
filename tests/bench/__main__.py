"""`make bench`: ours beside its peers and its limit, in one run.

python -m tests.bench [--only F1,B2] [--json path]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench import (
    cameras_held,
    flapping,
    front_door,
    hop,
    intake,
    local_run,
    machine,
    model_calls,
    redeploy,
    restart,
    video,
)
from tests.bench.result import Line, Report, save, table

Bench = Callable[[Path], Report]

BENCHES: Mapping[tuple[str, ...], Bench] = {
    ("F1", "F2"): front_door.f1_f2,
    ("F3", "F5"): front_door.f3_f5,
    ("F4",): intake.f4,
    ("B1",): video.b1,
    ("B2",): hop.b2,
    ("B3",): video.b3,
    ("B5",): video.b5,
    ("B6",): flapping.b6,
    ("B11",): flapping.b11,
    ("B8",): redeploy.b8,
    ("B4",): model_calls.b4,
    ("B12",): cameras_held.b12,
    ("B10",): restart.b10,
    ("L1",): local_run.l1,
}
"""Ids that share one set-up → what measures them; `(folder) -> Report`, where the folder is empty and its own."""
KNOWN = sorted(id for ids in BENCHES for id in ids)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Ours beside its peers and its limit.")
    parser.add_argument("--only", default="", help=f"some of {', '.join(KNOWN)}, separated by commas")
    parser.add_argument("--json", type=Path, help="the lines as a JSON list too")
    options = parser.parse_args(argv)
    wanted = {name.strip().upper() for name in options.only.split(",") if name.strip()} or set(KNOWN)
    if unknown := wanted - set(KNOWN):
        parser.error(f"there is no {', '.join(sorted(unknown))}: {', '.join(KNOWN)} are known")
    print(machine.described(), flush=True)
    lines: list[Line] = []
    notes: list[str] = []
    for ids, bench in BENCHES.items():
        if not wanted & set(ids):
            continue
        print(f"measuring {', '.join(ids)} …", flush=True)
        # A short path: unix sockets lie in it.
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            report = bench(Path(folder))
        lines += [line for line in report.lines if line.id in wanted]
        notes += report.notes
    print(table(lines))
    for note in notes:
        print(note)
    if options.json:
        save(options.json, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
