"""What is mounted where, for archives that bring a system of their own."""

from __future__ import annotations

from pathlib import Path

from edge.supervisor.sandbox.layout import Mount, is_bare, root_mounts

OURS = ("/opt/aws/panorama/logs", "/opt/aws/panorama/storage", "/opt/belvedere/sdk", "/run/belvedere/app")


def image(tmp_path: Path) -> Path:
    for folder in ("usr/bin", "etc", "opt/aws/panorama/logs", "opt/vendor", "proc", "dev", "tmp", "panorama"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "opt" / "aws" / "panorama" / "readme").touch()
    return tmp_path


def test_entries_are_bound_links_made_again_and_folders_around_our_targets_opened(tmp_path: Path) -> None:
    root = image(tmp_path)
    assert list(root_mounts(root, OURS)) == [
        Mount("link", "/bin", "usr/bin"),
        Mount("read", "/etc", str(root / "etc")),
        Mount("folder", "/opt"),
        Mount("folder", "/opt/aws"),
        Mount("folder", "/opt/aws/panorama"),
        Mount("read", "/opt/aws/panorama/readme", str(root / "opt/aws/panorama/readme")),
        Mount("read", "/opt/vendor", str(root / "opt/vendor")),
        Mount("read", "/panorama", str(root / "panorama")),
        Mount("read", "/usr", str(root / "usr")),
    ]


def test_a_link_in_the_way_of_our_targets_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "opt").symlink_to("/home/somebody")
    assert [mount.target for mount in root_mounts(tmp_path, OURS)] == ["/usr"]


def test_an_archive_with_a_system_is_not_bare(tmp_path: Path) -> None:
    assert is_bare(tmp_path)
    (tmp_path / "bin").symlink_to("/nowhere")
    assert not is_bare(tmp_path)
