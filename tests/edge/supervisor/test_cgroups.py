"""Control groups, on a machine that gives some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.supervisor import cgroups
from edge.supervisor.spec import Limits


@pytest.fixture
def groups() -> cgroups.Groups:
    found = cgroups.find(f"test{os.getpid()}")
    if isinstance(found, str):
        pytest.skip(found)
    return found


def test_a_group_counts_who_is_in_it_and_goes_with_them(groups: cgroups.Groups) -> None:
    group = groups.group("one")
    group.make(Limits(memory_mb=64, pids=7, cpu=0.5))
    assert group.counters() == cgroups.Counters()
    group.remove()
    assert group.counters() == cgroups.Counters()
    assert groups.path("one").startswith("/") and groups.path("one").endswith("-one")


def test_what_a_killed_supervisor_left_is_swept_and_what_is_anothers_stays(groups: cgroups.Groups) -> None:
    other = cgroups.Groups(groups.parents, groups.unified, "somebody-else")
    left, others = groups.group("left"), other.group("kept")
    left.make(Limits())
    others.make(Limits())
    beside = [where / left_name(groups) for where in mounted("cgroup2")] if not groups.unified else []
    for folder in beside:  # as runc makes it on a machine with both versions
        folder.mkdir()
    try:
        groups.sweep()
        assert not any(folder.exists() for folder in beside)
        found = {path.name for parent in groups.parents.values() for path in parent.iterdir()}
        assert f"{cgroups.PREFIX}somebody-else-kept" in found
        assert not any(name.startswith(f"{cgroups.PREFIX}{groups.owner}-") for name in found)
    finally:
        others.remove()


def left_name(groups: cgroups.Groups) -> str:
    """The folder of the group `left`."""
    return groups.path("left").rpartition("/")[2]


def mounted(kind: str) -> list[Path]:
    """Where hierarchies of this kind are."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(words[4]) for words in lines if words[words.index("-") + 1] == kind]
