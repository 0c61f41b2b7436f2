"""Folders of applications: handed on, kept, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.supervisor.storage import GONE_PREFIX, StorageStore, remove, retire_folders


@pytest.fixture
def store(tmp_path: Path) -> StorageStore:
    return StorageStore(tmp_path / "storage")


def names(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "storage").iterdir()}


def test_a_line_of_replacements_has_one_folder_which_goes_with_the_last(store: StorageStore, tmp_path: Path) -> None:
    first = store.ready("a")
    (first / "kept").write_text("x")
    assert store.ready("b", "a") == first
    assert store.ready("c", "b") == first
    remove(store.retire({"c"}))
    assert names(tmp_path) == {"a", "c"}
    assert (store.ready("c", "b") / "kept").read_text() == "x", "again, after a restart"
    remove(store.retire(set()))
    assert names(tmp_path) == set()


def test_a_replacement_that_is_given_up_takes_nothing_with_it(store: StorageStore, tmp_path: Path) -> None:
    (store.ready("a") / "kept").write_text("x")
    store.ready("b", "a")
    remove(store.retire({"a"}))
    assert names(tmp_path) == {"a"}
    assert (store.ready("a") / "kept").exists()


def test_one_that_replaces_what_never_had_any_begins_empty(store: StorageStore) -> None:
    assert list(store.ready("b", "never").iterdir()) == []


def test_a_link_that_leads_nowhere_or_out_is_not_followed(store: StorageStore, tmp_path: Path) -> None:
    store.ready("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "storage" / "gone").symlink_to("not-there")
    (tmp_path / "storage" / "out").symlink_to(tmp_path / "outside")
    for name in ("gone", "out"):
        assert store.ready(name) == tmp_path / "storage" / name
        assert not (tmp_path / "storage" / name).is_symlink()


def test_what_an_application_made_can_be_removed_and_what_its_links_lead_to_stays(
    store: StorageStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    folder = store.ready("a")
    (folder / "link").symlink_to(outside)
    (folder / "locked" / "inner").mkdir(parents=True)
    (folder / "locked" / "inner" / "file").write_text("x")
    (folder / "locked" / "inner").chmod(0)
    (folder / "locked").chmod(0o500)
    remove(store.retire(set()))
    assert names(tmp_path) == set()
    assert (outside / "precious").exists()


def test_what_an_interrupted_removal_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / f"{GONE_PREFIX}1" / "inner").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    remove(retire_folders(tmp_path, {"kept"}))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_comes_while_the_old_is_deleted_is_not_taken_for_it(store: StorageStore, tmp_path: Path) -> None:
    store.ready("old")
    store.ready("heir", "old")
    gone = store.retire({"heir"}) + retire_folders(tmp_path / "storage", {"old", "heir"})
    store.ready("new")
    store.ready("newer", "new")
    remove(gone)
    assert names(tmp_path) == {"old", "heir", "new", "newer"}
    gone = store.retire(set())
    (store.ready("old") / "mine").write_text("x")
    remove(gone)
    assert names(tmp_path) == {"old"} and (store.ready("old") / "mine").exists()
