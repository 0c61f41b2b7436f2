"""Whose a process is."""

from __future__ import annotations

import os

from belvedere.processes import ProcessUse, families, tree


def use(pid: int, parent: int, name: str) -> ProcessUse:
    return ProcessUse(name, pid, parent, 0.0, 0.0)


USES = [
    use(1, 0, "edge"), use(2, 1, "edge.supervisor"), use(3, 1, "edge.agent"),
    use(10, 2, "keeper.py"), use(11, 10, ".init"), use(12, 11, "app.py"), use(13, 12, "worker"),
    use(20, 2, "bwrap"), use(21, 20, "bwrap"), use(22, 21, "app.py"), use(30, 2, "keeper.py"),
]  # fmt: skip


def test_what_keeps_an_application_and_what_it_starts_belong_to_it_and_the_appliances_own_to_nobody() -> None:
    found = families(USES, {12: "door", 22: "yard", 99: "gone"}, "edge.supervisor")
    assert found == {10: "door", 11: "door", 12: "door", 13: "door", 20: "yard", 21: "yard", 22: "yard"}


def test_rows_that_were_read_while_processes_came_and_went_do_not_lead_in_circles() -> None:
    assert families([use(5, 6, "a"), use(6, 5, "b")], {5: "door"}, "edge.supervisor") == {}


def test_a_process_is_told_with_the_one_that_started_it() -> None:
    (own,) = [row for row in tree(os.getpid()) if row.pid == os.getpid()]
    assert own.parent_pid == os.getppid() and own.pss_mb > 0
