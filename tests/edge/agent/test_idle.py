"""Work below everything else."""

import os

import pytest

from edge.agent.idle import IDLE_PRIORITY, when_idle


def priority() -> int:
    """Of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, 0)


async def test_idle_work_is_below_everything_and_lowers_nothing_else() -> None:
    before = priority()
    assert await when_idle(priority) == IDLE_PRIORITY
    assert priority() == before < IDLE_PRIORITY


async def test_what_idle_work_raises_gets_to_who_waits() -> None:
    with pytest.raises(ZeroDivisionError):
        await when_idle(lambda: 1 // 0)
