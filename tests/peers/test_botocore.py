"""The Panorama API through two botocores: AWS's last with its own model, and today's with ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from belvedere import awsmodel
from tests.support.clients import INSTALL_TIMEOUT_S, Clients
from tests.support.front_door import Door, front_door

pytestmark = [pytest.mark.peers, pytest.mark.timeout(INSTALL_TIMEOUT_S + 120)]

MODEL = "panorama/2019-07-24/service-2.json"
DUMP = """
import json
from botocore.loaders import Loader
print(json.dumps(Loader().load_service_model("panorama", "service-2")))
"""
HERE = Path(__file__).parent
IDS = re.compile(r"(?:(?:device|package|applicationInstance)-)?(?<![a-z2-7])[a-z2-7]{26}(?![a-z2-7])")


def today() -> Clients:
    """The Python of the tests: today's boto3, which has no Panorama of its own."""
    return Clients(Path(sys.prefix))


def script(clients: Clients, door: Door, cwd: Path, name: str, *arguments: str, model: bool) -> Any:
    done: subprocess.CompletedProcess[str] = clients.run(
        door, ["python", str(HERE / name), *arguments], cwd=cwd, model=model
    )
    return json.loads(done.stdout)


def without_ids(answers: list[Any]) -> list[Any]:
    """With every id and page token replaced by its place in the order in which they first appear."""
    seen: dict[str, str] = {}
    text = IDS.sub(lambda match: seen.setdefault(match[0], f"id-{len(seen)}"), json.dumps(answers))
    return list(json.loads(re.sub(r'("NextToken": )"[^"]+"', r'\1"token"', text)))


def without_documentation(value: Any) -> Any:
    """Ours is our own."""
    if isinstance(value, dict):
        return {
            k: without_documentation(v) for k, v in value.items() if not (k == "documentation" and isinstance(v, str))
        }
    return [without_documentation(v) for v in value] if isinstance(value, list) else value


def test_our_model_says_what_awss_own_said(last_botocore: Clients, door: Door, tmp_path: Path) -> None:
    theirs = json.loads(last_botocore.run(door, ["python", "-c", DUMP], cwd=tmp_path, model=False).stdout)
    ours = json.loads((awsmodel.model_folder() / MODEL).read_text())
    for model in (theirs, ours):
        model["metadata"].pop("protocols", None)
        for operation in model["operations"].values():
            operation["errors"].sort(key=lambda error: str(error["shape"]))
        for shape in model["shapes"].values():
            shape.get("required", []).sort()
    for part in ("metadata", "operations", "shapes"):
        assert without_documentation(ours[part]) == without_documentation(theirs[part])


@pytest.fixture(scope="module")
def tours(last_botocore: Clients, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    """(AWS's own, ours): the same tour, each through a cloud of its own."""
    answers: list[list[Any]] = []
    for clients, model in ((last_botocore, False), (today(), True)):
        folder = tmp_path_factory.mktemp("cloud")
        with front_door(folder / "data") as door:
            answers.append(script(clients, door, folder, "panorama_tour.py", model=model))
    return answers[0], answers[1]


def test_a_tour_of_all_operations_reads_the_same_through_both(tours: tuple[list[Any], list[Any]]) -> None:
    theirs, ours = (without_ids(answers) for answers in tours)
    for mine, judged in zip(ours, theirs, strict=True):
        assert mine == judged


def test_the_tour_has_every_operation_succeed_and_no_call_fail_within(tours: tuple[list[Any], list[Any]]) -> None:
    succeeded = {operation.replace("_", "") for operation, status, _ in tours[0] if status == 200}
    assert succeeded == {name.lower() for name in awsmodel.panorama().operations}
    for operation, status, answer in tours[0]:
        assert status < 500, (operation, answer)
        if status != 200:
            assert answer["Error"]["Code"] != "Unknown" and answer["Error"]["Message"], (operation, answer)


def test_the_same_state_and_bad_input_read_the_same_through_both(
    door: Door, last_botocore: Clients, tmp_path: Path
) -> None:
    panorama = door.client("panorama")
    device = panorama.provision_device(Name="judged", Tags={"a": "b"})
    package = panorama.create_package(PackageName="judged")
    where = (device["DeviceId"], package["PackageId"], device["Arn"])
    theirs = script(last_botocore, door, tmp_path, "panorama_reads.py", *where, model=False)
    ours = script(today(), door, tmp_path, "panorama_reads.py", *where, model=True)
    for mine, judged in zip(ours, theirs, strict=True):
        assert mine == judged
