"""What leaves a developer's machine for a changed line, against a real front door."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from belvedere.chunks.parcel import write_parcel
from belvedere.cli.account import Account
from belvedere.cli.errors import CliError
from tests.support.archives import tar_gz
from tests.support.cloud import REGION
from tests.support.folders import FRAMES_THROUGH, application_folder, change_source
from tests.support.front_door import Door, front_door

LIBRARY = random.Random(3).randbytes(2_000_000)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    services = ["identity", "registry", "packages", "deployments", "gateway"]
    with front_door(tmp_path_factory.mktemp("cloud"), services) as running:
        yield running


def sizes(account: Account, name: str) -> dict[str, int]:
    """What is stored of a package's archives, by key's end."""
    bucket = f"panorama-{account.account_id}-{REGION}"
    found = account.s3.list_objects_v2(Bucket=bucket, Prefix=f"{account.account_id}/nodePackages/{name}/binaries/")
    return {item["Key"].rpartition("/")[2]: item["Size"] for item in found["Contents"] if ".tar.gz" in item["Key"]}


def test_of_a_changed_line_only_the_changed_chunks_are_sent(account: Account, tmp_path: Path) -> None:
    app = application_folder(tmp_path / "app", "sent", FRAMES_THROUGH, cameras=["front"])
    (app.package("sent_code").folder / "src" / "library.so").write_bytes(LIBRARY)
    change_source(app, FRAMES_THROUGH)
    (first,) = account.register_packages(app)
    assert first.registered
    before = sizes(account, "sent_code")
    change_source(app, FRAMES_THROUGH.replace("seen", "noticed"))
    (second,) = account.register_packages(app)
    assert second.registered and second.uploaded == 1
    (size,) = (size for key, size in sizes(account, "sent_code").items() if key not in before)
    assert next(iter(before.values())) > len(LIBRARY)
    assert size < len(LIBRARY) / 100
    assert not account.register_packages(app)[0].registered


def test_where_chunks_are_not_there_the_whole_archive_follows(account: Account, tmp_path: Path) -> None:
    app = application_folder(tmp_path / "app", "lost", FRAMES_THROUGH, cameras=["front"])
    account.register_packages(app)
    (memory,) = app.assets.glob(".sent-*")
    # It is remembered that the bucket has a chunk of the new code, and it has not.
    change_source(app, FRAMES_THROUGH.replace("seen", "forgotten"))
    other = application_folder(
        tmp_path / "other", "lost", FRAMES_THROUGH.replace("seen", "forgotten"), cameras=["front"]
    )
    (archive,) = other.assets.glob("*.tar.gz")
    digests = write_parcel(archive, tmp_path / "parcel", set())
    memory.write_bytes(memory.read_bytes() + b"".join(map(bytes.fromhex, digests)))
    (published,) = account.register_packages(app)
    assert published.registered
    assert sorted(key.rpartition(".")[2] for key in sizes(account, "lost_code")) == ["chunks", "gz"]


def test_an_archive_that_is_refused_is_refused_as_a_whole_too(account: Account, tmp_path: Path) -> None:
    app = application_folder(tmp_path / "app", "evil", FRAMES_THROUGH, cameras=["front"])
    (archive,) = app.assets.glob("*.tar.gz")
    archive.write_bytes(tar_gz({"../evil": b"1"}))
    with pytest.raises(CliError, match="a name leads out of it"):
        account.register_packages(app)
