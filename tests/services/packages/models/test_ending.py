"""A conversion that takes too long ends with all that it has started, whatever it does meanwhile."""

from __future__ import annotations

import uuid

import psutil
import pytest

from services.packages.models.convert import ModelRefused, _run


@pytest.mark.parametrize("doing", ["sleep 600.", "yes "], ids=["silent", "talking"])
async def test_what_takes_too_long_is_ended_with_its_children_who_hold_its_output(doing: str) -> None:
    doing += str(uuid.uuid4().int)
    with pytest.raises(ModelRefused, match="took more than"):
        await _run(["sh", "-c", f"{doing} & {doing}"], 0.5)
    assert not [process for process in psutil.process_iter() if doing in " ".join(_command(process))]


async def test_what_ends_by_itself_says_what_it_printed() -> None:
    assert await _run(["sh", "-c", "echo one; echo two >&2"], 30) == "one\ntwo\n"


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []  # it has ended since it was listed
