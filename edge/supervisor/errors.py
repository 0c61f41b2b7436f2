"""What can go wrong with an application before it runs.

SupervisorError            code: the fleet.ReasonCode that is reported
├─ SpecInvalid             supervisor.apply was given an application that can't be read
├─ ArchiveRefused          a container archive that is damaged, or that tries to leave its folder
├─ SandboxUnavailable      this machine can't make sandboxes; says what to change
└─ StartFailed             the entry can't be executed
"""

from __future__ import annotations

from pathlib import Path

from belvedere.fleet import ReasonCode


class SupervisorError(Exception):
    """Base. The message says what is wrong and what to do; `code` is what the appliance reports."""

    code: ReasonCode = ReasonCode.APPLIANCE_ERROR


class SpecInvalid(SupervisorError):
    """An application's description can't be used."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.place = place
        self.problem = problem


class ArchiveRefused(SupervisorError):
    """A container archive is not unpacked."""

    code = ReasonCode.ASSET_INVALID

    def __init__(self, archive: Path, problem: str, member: str | None = None) -> None:
        where = f" ({member!r})" if member is not None else ""
        super().__init__(f"the application's archive {archive.name[:16]}… is refused: {problem}{where}")
        self.archive = archive
        self.member = member


class SandboxUnavailable(SupervisorError):
    """No sandbox can be made here."""


class StartFailed(SupervisorError):
    """The sandbox was made, and the entry could not be executed in it."""

    code = ReasonCode.APP_START_FAILED

    def __init__(self, entry: str, problem: str) -> None:
        super().__init__(f"`{entry}` can't be started ({problem}): check the entry in the package's descriptor")
        self.entry = entry
