"""Fault scripts: what goes wrong with a simulated camera, and when. Pure; docs/run.md is their reference.

    seed = 7

    [[fault]]
    do = "lose"          # every third packet
    every = 3
    at_s = 10            # since the first viewer knocked
    for_s = 5
    every_s = 60         # again each minute
    camera = "entrance"  # of several; all of them without

`drop` connections · `refuse` the password · `missing` stream · `freeze` · `delay` · `lose` and `corrupt` packets · `clock`
· `switch` to another file (of another size, rate or codec). The same script does the same to the same camera each time.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FaultScriptInvalid

KINDS: Mapping[str, frozenset[str]] = {
    "drop": frozenset(),
    "refuse": frozenset({"for_s"}),
    "missing": frozenset({"for_s"}),
    "freeze": frozenset({"for_s"}),
    "delay": frozenset({"by_s"}),
    "lose": frozenset(),
    "corrupt": frozenset(),
    "clock": frozenset({"by_s"}),
    "switch": frozenset({"file"}),
}
"""What can be done, and which fields it needs besides `at_s`."""
CUTS = frozenset({"drop", "refuse", "missing", "switch"})
"""Those that end the connections when they begin."""
_TIMES = ("at_s", "for_s", "every_s")
_OWN = {
    "delay": ("by_s", "jitter_s"),
    "lose": ("every", "share"),
    "corrupt": ("every", "share", "bytes"),
    "clock": ("by_s",),
    "switch": ("file",),
}
MOST_S = 1e6


@dataclass(frozen=True)
class Fault:
    """One entry of a script."""

    do: str
    at_s: float = 0.0
    for_s: float | None = None
    """None: for ever; for a `drop`: only the moment."""
    every_s: float | None = None
    """From one beginning to the next; None: once."""
    camera: str = ""
    """Empty: every one."""
    by_s: float = 0.0
    jitter_s: float = 0.0
    every: int = 0
    """Each so manieth packet; 0: as `share` says."""
    share: float = 0.0
    """Of the packets, 0..1."""
    bytes: int = 4
    """Changed in each packet."""
    file: Path | None = None

    @property
    def lasts_s(self) -> float:
        """How long it stays."""
        return (0.0 if self.do == "drop" else math.inf) if self.for_s is None else self.for_s

    def active(self, t_s: float) -> bool:
        """Whether it is on at this moment."""
        begun = self.begun(t_s)
        return begun is not None and t_s < begun + self.lasts_s

    def begun(self, t_s: float) -> float | None:
        """When it began last; None before the first time."""
        if t_s < self.at_s:
            return None
        if self.every_s is None:
            return self.at_s
        return self.at_s + math.floor((t_s - self.at_s) / self.every_s) * self.every_s

    def next_change(self, t_s: float) -> float | None:
        """The next moment after `t_s` at which it begins or ends; None: no more."""
        begun = self.begun(t_s)
        if begun is None:
            return self.at_s
        end = begun + self.lasts_s
        again = None if self.every_s is None else begun + self.every_s
        return min((moment for moment in (end, again) if moment is not None and t_s < moment < math.inf), default=None)

    def __str__(self) -> str:
        details = [
            f"by {self.by_s:g} s" if self.do in ("delay", "clock") else "",
            f"every {self.every}. packet" if self.every else f"{self.share:.0%} of the packets" if self.share else "",
            f"to {self.file.name}" if self.file else "",
            f"for {self.for_s:g} s" if self.for_s else "",
        ]
        return " ".join(part for part in (self.do, *details) if part)


@dataclass(frozen=True)
class FaultScript:
    """A whole script."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def of(self, camera: str) -> FaultScript:
        """What concerns one camera."""
        return FaultScript(tuple(fault for fault in self.faults if fault.camera in ("", camera)), self.seed)

    def active(self, kind: str, t_s: float) -> Fault | None:
        """The first fault of a kind that is on at this moment."""
        return next((fault for fault in self.faults if fault.do == kind and fault.active(t_s)), None)

    def next_change(self, t_s: float) -> float | None:
        """The next moment at which any begins or ends."""
        moments = (fault.next_change(t_s) for fault in self.faults)
        return min((moment for moment in moments if moment is not None), default=None)

    @classmethod
    def load(cls, path: Path, cameras: Iterable[str] = ()) -> FaultScript:
        """Reads a script; names of files in it are relative to it. `cameras`: those there are. Raises FaultScriptInvalid
        with everything that is wrong."""
        try:
            document = tomllib.loads(path.read_text())
        except OSError as error:
            raise FaultScriptInvalid([f"{path}: can't be read: {error.strerror}"]) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FaultScriptInvalid([f"{path}: is not TOML: {error}"]) from error
        return cls.read(document, path, cameras)

    @classmethod
    def read(cls, document: Mapping[str, Any], path: Path, cameras: Iterable[str] = ()) -> FaultScript:
        """The same from a document that has been read: `fault` and `seed` in it."""
        wrong: list[str] = []
        entries = document.get("fault", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise FaultScriptInvalid([f"{path}: fault: must be written [[fault]], once for each"])
        for name in document.keys() - {"fault", "seed"}:
            wrong.append(f"{path}: {name}: is not known; a script has seed and [[fault]]")
        seed = document.get("seed", 0)
        if type(seed) is not int:
            wrong.append(f"{path}: seed: must be a whole number")
        faults = []
        for number, entry in enumerate(entries):
            found: list[str] = []
            fault = _fault(entry, path.parent, tuple(cameras), found)
            wrong += [f"{path}: fault[{number}].{text}" for text in found]
            if fault is not None:
                faults.append(fault)
        if wrong:
            raise FaultScriptInvalid(wrong)
        return cls(tuple(faults), seed)


def _fault(entry: Mapping[str, Any], folder: Path, cameras: tuple[str, ...], wrong: list[str]) -> Fault | None:
    kind = entry.get("do")
    if not isinstance(kind, str) or kind not in KINDS:
        wrong.append(f"do: must be one of {', '.join(KINDS)}, not {kind!r}")
        return None
    known = {"do", "camera", *_TIMES, *_OWN.get(kind, ())}
    wrong += [f"{name}: is nothing that {kind} takes" for name in entry if name not in known]
    wrong += [f"{name}: is missing" for name in sorted(KINDS[kind]) if name not in entry]
    values: dict[str, Any] = {}
    for name in (*_TIMES, "by_s", "jitter_s"):
        if name in entry and name in known:
            values[name] = _number(
                entry[name], name, wrong, least=-MOST_S if (kind, name) == ("clock", "by_s") else 0.0
            )
    for name in ("every", "bytes"):
        if name in entry and name in known:
            values[name] = _number(entry[name], name, wrong, least=1, whole=True)
    if "share" in entry and "share" in known:
        values["share"] = _number(entry["share"], "share", wrong, most=1.0)
    if kind in ("lose", "corrupt") and not ("every" in entry) ^ ("share" in entry):
        wrong.append("every: say each how manieth packet with every, or which part of them with share, and not both")
    if values.get("every_s") == 0:
        wrong.append("every_s: must be more than 0")
    elif values.get("every_s") and values.get("for_s", 0) > values["every_s"]:
        wrong.append("for_s: lasts longer than until the next time (every_s)")
    camera = entry.get("camera", "")
    if not isinstance(camera, str) or (camera and cameras and camera not in cameras):
        wrong.append(f"camera: no camera {camera!r}; there are: {', '.join(cameras)}")
    if kind == "switch" and isinstance(entry.get("file"), str):
        values["file"] = folder / entry["file"]
        if not values["file"].is_file():
            wrong.append(f"file: {values['file']} is not there")
    return None if wrong else Fault(kind, camera=camera, **values)


def _number(
    value: object, name: str, wrong: list[str], least: float = 0.0, most: float = MOST_S, whole: bool = False
) -> float:
    fits = isinstance(value, int) if whole else isinstance(value, int | float)
    if not fits or isinstance(value, bool) or not least <= value <= most:  # type: ignore[operator]
        wrong.append(f"{name}: must be a {'whole ' if whole else ''}number from {least:g} to {most:g}, not {value!r}")
        return least
    return value  # type: ignore[return-value]
