"""`belvedere app …` against a real front door: what a person types, what it says, what is then in the account."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from belvedere.cli.app_logs import LogTail
from belvedere.cli.main import main
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door, front_door

AWS = (
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_PROFILE",
)

Belvedere = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with front_door(tmp_path_factory.mktemp("cloud")) as running:
        for name in ("door", "yard"):
            running.client("panorama").create_node_from_template_job(
                NodeName=name,
                OutputPackageName=name,
                OutputPackageVersion="1.0",
                TemplateType="RTSP_CAMERA_STREAM",
                TemplateParameters={"StreamUrl": f"rtsp://192.0.2.1/{name}"},
            )
        yield running


@pytest.fixture
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No AWS settings at all, and no files of the person who runs the tests."""
    for name in AWS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def environment(door: Door, bare_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `belvedere env` prints."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", door.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", door.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", door.secret_access_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture
def belvedere(capfd: pytest.CaptureFixture[str]) -> Belvedere:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return (status, *capfd.readouterr())

    return run


def instance_in(out: str) -> str:
    """The instance that was printed; the cloud's own log lines may stand around it."""
    found = re.search(r"^applicationInstance-\w+$", out, re.MULTILINE)
    assert found is not None, out
    return found.group()


def provisioned(door: Door, name: str) -> str:
    return str(door.client("panorama").provision_device(Name=name)["DeviceId"])


@pytest.mark.usefixtures("environment")
def test_from_an_empty_folder_to_a_deployment(door: Door, belvedere: Belvedere, tmp_path: Path) -> None:
    folder = tmp_path / "watch"
    assert belvedere("app", "init", folder)[0] == 0
    assert "WATCH_CODE: " in belvedere("app", "build", folder)[1]
    assert "registered, 2 files uploaded" in belvedere("app", "package", folder)[1]
    assert "registered already" in belvedere("app", "package", folder)[1]

    with next(folder.rglob("application.py")).open("a") as code:
        code.write("# changed\n")
    belvedere("app", "build", folder)
    assert "registered, 1 file uploaded" in belvedere("app", "package", folder)[1], "the descriptor was there"

    device_id = provisioned(door, "shop-1")
    deploy = ("app", "deploy", folder, "--device", "shop-1", "--override", "camera=door,yard", "--no-wait")
    status, out, err = belvedere(*deploy, "--override", "sensitivity=0.3")
    assert status == 0, err
    instance_id = instance_in(out)
    panorama = door.client("panorama")
    details = panorama.describe_application_instance_details(ApplicationInstanceId=instance_id)
    assert (details["Name"], details["DefaultRuntimeContextDevice"]) == ("watch", device_id)
    overrides = json.loads(details["ManifestOverridesPayload"]["PayloadData"])["nodeGraphOverrides"]
    assert overrides["nodeOverrides"][0] == {"replace": "camera", "with": [{"name": "door"}, {"name": "yard"}]}
    role = panorama.describe_application_instance(ApplicationInstanceId=instance_id)["RuntimeRoleArn"]
    assert role == f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"

    status, out, err = belvedere(*deploy, "--replace", "same-name", "--role", "none")
    assert status == 0, err
    second = panorama.describe_application_instance(ApplicationInstanceId=instance_in(out))
    assert second["ApplicationInstanceIdToReplace"] == instance_id and "RuntimeRoleArn" not in second


@pytest.mark.usefixtures("environment")
def test_what_cannot_be_deployed_is_told_with_what_there_is(door: Door, belvedere: Belvedere, tmp_path: Path) -> None:
    folder = tmp_path / "watch"
    belvedere("app", "init", folder)
    provisioned(door, "shop-2")

    def refused(*arguments: str) -> str:
        status, _, err = belvedere("app", "deploy", folder, *arguments)
        assert status == 2 and err.startswith("belvedere: "), err
        return err

    assert "shop-2 (device-" in refused("--device", "nowhere")
    assert "there are: door, yard" in refused("--device", "shop-2", "--override", "camera=roof")
    assert "can be overridden: camera, sensitivity" in refused("--device", "shop-2", "--override", "eye=door")
    assert "is no float32" in refused("--device", "shop-2", "--override", "sensitivity=high")
    assert "say NODE=CAMERA" in refused("--device", "shop-2", "--override", "camera")
    assert "no application instance" in belvedere("app", "logs", "nobody")[2]
    assert "has a Dockerfile" in refused_build(belvedere, folder)


def refused_build(belvedere: Belvedere, folder: Path) -> str:
    next(folder.rglob("Dockerfile")).unlink()
    status, _, err = belvedere("app", "build", folder)
    assert status == 2
    return err


@pytest.mark.usefixtures("environment")
def test_a_folder_of_another_account_is_refused_until_it_is_imported(belvedere: Belvedere, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    belvedere("app", "init", folder, "--account", "210987654321")
    belvedere("app", "build", folder)
    status, _, err = belvedere("app", "package", folder)
    assert status == 2 and "belvedere app import" in err
    assert f"210987654321 → {ACCOUNT}\n" in belvedere("app", "import", folder)[1]
    assert "registered" in belvedere("app", "package", folder)[1]


@pytest.mark.usefixtures("bare_environment")
def test_without_an_endpoint_the_variables_that_are_missing_are_named(
    belvedere: Belvedere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "watch"
    assert belvedere("app", "init", folder)[0] == 0, "a folder can be made without"
    belvedere("app", "build", folder)
    status, _, err = belvedere("app", "package", folder)
    assert status == 2 and "belvedere env" in err
    for name in ("AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        assert name in err
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    status, _, err = belvedere("app", "package", folder)
    assert status == 2 and "is the endpoint up?" in err


@pytest.mark.usefixtures("environment")
def test_all_streams_of_a_log_are_one_and_are_read_on_from_where_they_were_read_to(door: Door) -> None:
    logs = boto3.client("logs")
    began_ms = time.time_ns() // 1_000_000 - 60_000
    group = "/aws/panorama/devices/device-1/applications/applicationInstance-1"
    assert LogTail(logs, group).last(5) == [], "it has said nothing yet"
    logs.create_log_group(logGroupName=group)

    def put(stream: str, *events: tuple[int, str]) -> None:
        logs.put_log_events(
            logGroupName=group,
            logStreamName=stream,
            logEvents=[{"timestamp": began_ms + at, "message": message} for at, message in events],
        )

    for stream in ("code_node", "console_output"):
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
    put("code_node", (1, "a"), (3, "c"))
    put("console_output", (2, "b"), (4, "d"))
    tail = LogTail(logs, group)
    assert [line.message for line in tail.last(3)] == ["b", "c", "d"]
    logs.create_log_stream(logGroupName=group, logStreamName="later")
    put("code_node", (6, "f"))
    put("later", (5, "e"))
    followed = tail.follow()
    assert [next(followed).message for _ in range(2)] == ["e", "f"]
    put("later", (7, "g"))
    assert next(followed).message == "g"
