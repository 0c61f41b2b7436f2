"""`belvedere user|key|token|policy|role|audit` against a real cloud side, over the owner's socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from belvedere.cli.audit import since
from belvedere.cli.errors import CliError
from belvedere.cli.main import main
from tests.support.cloud import ACCOUNT
from tests.support.front_door import Door, front_door

Belvedere = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with front_door(tmp_path_factory.mktemp("cloud"), ["identity", "registry", "packages", "gateway"]) as running:
        yield running


@pytest.fixture
def belvedere(door: Door, capsys: pytest.CaptureFixture[str]) -> Belvedere:
    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*words, "--data", str(door.cloud.runtime.data)])
        told = capsys.readouterr()
        # The cloud side logs in this process.
        return code, "".join(line + "\n" for line in told.out.splitlines() if "[info" not in line), told.err

    return run


def _file(folder: Path, action: str) -> Path:
    """A policy that allows one action."""
    file = folder / "policy.json"
    file.write_text(json.dumps({"Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}}))
    return file


def test_from_a_user_to_a_call_that_is_allowed_and_one_that_is_not(
    door: Door, belvedere: Belvedere, tmp_path: Path
) -> None:
    document = tmp_path / "look.json"
    document.write_text(json.dumps({"Statement": {"Effect": "Allow", "Action": "panorama:List*", "Resource": "*"}}))
    assert belvedere("policy", "create", "look", str(document)) == (0, f"arn:aws:iam::{ACCOUNT}:policy/look\n", "")
    assert belvedere("user", "create", "ada", "--policy", "look")[1] == f"arn:aws:iam::{ACCOUNT}:user/ada\n"
    code, out, err = belvedere("key", "create", "--user", "ada")
    key = dict(line.split("=", 1) for line in out.splitlines())
    assert code == 0 and "told only now" in err and set(key) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    client = door.client("panorama", keys=(key["AWS_ACCESS_KEY_ID"], key["AWS_SECRET_ACCESS_KEY"]))
    client.list_packages()
    with pytest.raises(client.exceptions.AccessDeniedException):
        client.create_package(PackageName="no")

    _, listed, _ = belvedere("key", "list", "--user", "ada")
    assert "panorama in us-east-1" in listed and key["AWS_SECRET_ACCESS_KEY"] not in listed
    assert belvedere("policy", "attach", "AWSPanoramaFullAccess", "--user", "ada")[0] == 0
    assert "look, AWSPanoramaFullAccess" in belvedere("user", "list")[1]
    client.create_package(PackageName="yes")
    assert belvedere("policy", "detach", "look", "--user", "ada")[0] == 0

    _, trail, _ = belvedere("audit", "--user", "ada")
    lines = [line.split("  ") for line in trail.splitlines()]
    assert [(line[1].strip(), line[2].strip(), line[3]) for line in lines] == [
        ("allowed", "user/ada", "panorama:ListPackages"),
        ("DENIED", "user/ada", "panorama:CreatePackage"),
        ("allowed", "user/ada", "panorama:CreatePackage"),
    ]
    assert len(belvedere("audit", "--user", "ada", "--denied", "--since", "1h")[1].splitlines()) == 1
    entries = [json.loads(line) for line in belvedere("audit", "--json", "--user", "admin")[1].splitlines()]
    made = next(entry for entry in entries if entry["action"] == "iam:CreateUser")
    assert made["resource"].endswith("user/ada") and made["allowed"] and made["source_address"] == ""

    source = {"Bucket": f"panorama-{ACCOUNT}-us-east-1", "Key": "copy", "CopySource": "elsewhere/what\x07it was"}
    assert belvedere("policy", "create", "put", str(_file(tmp_path, "s3:PutObject")))[0] == 0
    assert belvedere("policy", "attach", "put", "--user", "ada")[0] == 0
    with pytest.raises(ClientError):
        door.client("s3", keys=(key["AWS_ACCESS_KEY_ID"], key["AWS_SECRET_ACCESS_KEY"])).copy_object(**source)
    line = belvedere("audit", "--user", "ada", "--denied")[1].splitlines()[-1]
    target, read = f"arn:aws:s3:::{source['Bucket']}/copy", "arn:aws:s3:::elsewhere/what\ufffdit was"
    assert line.endswith(f"  (DENIED s3:GetObject {read}; allowed s3:PutObject {target})")
    told = json.loads(belvedere("audit", "--json", "--user", "ada")[1].splitlines()[-1])
    assert (told["action"], told["resource"], told["allowed"]) == ("s3:PutObject", target, False)
    assert [decision["allowed"] for decision in told["decisions"]] == [True, False]

    assert belvedere("key", "disable", key["AWS_ACCESS_KEY_ID"])[0] == 0
    assert "disabled" in belvedere("key", "list", "--user", "ada")[1]
    assert belvedere("key", "enable", key["AWS_ACCESS_KEY_ID"])[0] == 0
    assert belvedere("key", "delete", key["AWS_ACCESS_KEY_ID"])[0] == 0
    assert belvedere("user", "delete", "ada")[0] == 0
    assert "ada" not in belvedere("user", "list")[1]


def test_a_role_with_its_trust_policy(belvedere: Belvedere, tmp_path: Path) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:role/night"
    assert belvedere("role", "create", "night", "--policy", "BelvedereReadOnly")[1] == f"{arn}\n"
    assert "panorama.amazonaws.com" in belvedere("role", "show", "night")[1]
    trust = tmp_path / "trust.json"
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ACCOUNT}}
    trust.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert belvedere("role", "trust", "night", str(trust))[0] == 0
    assert json.loads(belvedere("role", "show", "night")[1])["Statement"] == [statement]
    listed = belvedere("role", "list")[1]
    assert "BelvedereApplication " in listed and "BelvedereReadOnly" in listed
    assert belvedere("role", "delete", "night")[0] == 0


def test_policies_are_listed_shown_changed_and_deleted(belvedere: Belvedere, tmp_path: Path) -> None:
    document = tmp_path / "p.json"
    document.write_text('{"Statement": {"Effect": "Allow", "Action": "a:B", "Resource": "*"}}')
    belvedere("policy", "create", "passing", str(document))
    document.write_text('{"Statement": {"Effect": "Deny", "Action": "a:B", "Resource": "*"}}')
    assert belvedere("policy", "update", "passing", str(document))[0] == 0
    assert json.loads(belvedere("policy", "show", "passing")[1])["Statement"]["Effect"] == "Deny"
    assert "BelvedereReadOnly" in belvedere("policy", "list")[1]
    assert belvedere("policy", "delete", "passing")[0] == 0
    assert "passing" not in belvedere("policy", "list")[1]


def test_a_token_is_told_once_and_can_be_revoked(belvedere: Belvedere) -> None:
    code, out, err = belvedere("token", "create", "--user", "admin", "--hours", "1")
    assert code == 0 and out.startswith("bvd_") and len(out.split()) == 1 and "Good until" in err
    assert belvedere("token", "revoke", "--user", "admin")[0] == 0
    assert "between 60 and" in belvedere("token", "create", "--user", "admin", "--hours", "99999")[2]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("user", "create", "a b"), "letters, digits"),
        (("user", "create", "eve", "--policy", "Nothing"), "there is no policy 'Nothing': AdministratorAccess"),
        (("user", "delete", "nobody"), "There is no user 'nobody'"),
        (("user", "delete", "admin"), "owner of the data folder"),
        (("key", "create", "--user", "nobody"), "There is no user 'nobody'"),
        (("key", "delete", "AKIANOBODY"), "There is no access key"),
        (("policy", "create", "p", "/nowhere.json"), "cannot be read"),
        (("policy", "delete", "AdministratorAccess"), "is always there"),
        (("policy", "detach", "BelvedereReadOnly", "--user", "admin"), "does not have the policy"),
        (("policy", "show", "arn:aws:iam::999999999999:policy/x"), "is not the ARN of a policy of this account"),
        (("role", "show", "nobody"), "there is no role 'nobody'"),
        (("audit", "--since", "yesterday"), "15m, 2h, 7d"),
    ],
)
def test_what_is_wrong_is_one_clear_line(belvedere: Belvedere, words: tuple[str, ...], text: str) -> None:
    code, out, err = belvedere(*words)
    told = [line for line in err.splitlines() if line.startswith("belvedere: ")]
    assert code == 2 and out == "" and len(told) == 1 and text in told[0]
    assert "Traceback" not in err


def test_everything_wrong_with_a_document_is_told_with_its_place(belvedere: Belvedere, tmp_path: Path) -> None:
    document = tmp_path / "p.json"
    document.write_text(
        '{"Statement": [{"Effect": "May", "Action": "a:B", "Resource": "*", "Condition": {"Like": {}}}]}'
    )
    _, _, err = belvedere("policy", "create", "p", str(document))
    assert "Statement[0].Effect: must be Allow or Deny" in err and "Statement[0].Condition.Like: is no operator" in err


def test_a_folder_without_a_cloud_side_and_one_that_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["user", "list", "--data", str(tmp_path)]) == 2
    assert "holds no cloud side yet" in capsys.readouterr().err
    ids = {"account_id": ACCOUNT, "region": "us-east-1", "access_key_id": "A", "secret_access_key": "s"}
    (tmp_path / "admin.json").write_text(json.dumps(ids))
    (tmp_path / "ports.json").write_text('{"gateway": 1, "console": 2}')
    assert main(["user", "list", "--data", str(tmp_path)]) == 2
    assert "does not answer: start it with `belvedere up" in capsys.readouterr().err


def test_since_takes_ages_and_times() -> None:
    now = datetime(2026, 11, 22, 5, tzinfo=UTC)
    assert since("90m", now) == datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
    assert since("2026-11-21", now) == datetime(2026, 11, 21, tzinfo=UTC)
    with pytest.raises(CliError):
        since("soon", now)
