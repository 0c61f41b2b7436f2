"""What an application is started with: the container contract of AWS Panorama, and what leads to our gateway."""

from __future__ import annotations

from typing import Any

from belvedere.chassis.secret import Secret
from edge.supervisor.environment import command_line, environment
from edge.supervisor.spec import AppSpec


def spec(**entry: Any) -> AppSpec:
    return AppSpec.from_plain(
        {
            "instance_id": "applicationInstance-1",
            "name": "counter",
            "node": "code_node",
            "rootfs": "/x",
            "entry": {"path": "$default", "name": "/panorama/app.py", "arguments": [], "environment": {}, **entry},
            "region": "eu-west-1",
        },
        "spec",
    )


def test_the_contracts_variables_are_there() -> None:
    seen = environment(spec(), path="/bin")
    expected = {
        "PATH": "/bin",
        "TERM": "xterm",
        "container": "podman",
        "HOME": "/root",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AppGraph_Uid": "applicationInstance-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:8700",
        "PYTHONPATH": "/opt/belvedere/sdk",
    }
    assert {name: seen.get(name) for name in expected} == expected
    assert not [name for name in seen if name.startswith("AWS_CONTAINER")]


def test_with_a_role_boto3_finds_its_credentials_by_itself() -> None:
    seen = environment(spec(), token=Secret("token"))
    assert seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == "http://127.0.0.1:8701/credentials"
    assert seen["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == "token"


def test_the_descriptors_variables_win_but_our_sdk_stays_in_front() -> None:
    own = {"TERM": "dumb", "MODEL": "small one", "PYTHONPATH": "/panorama/lib", "PYTHON_EGG_CACHE": "/panorama/.cache"}
    seen = environment(spec(environment=own))
    assert (seen["TERM"], seen["MODEL"]) == ("dumb", "small one")
    assert seen["PYTHON_EGG_CACHE"] == "/panorama/.cache"
    assert seen["PYTHONPATH"] == "/opt/belvedere/sdk:/panorama/lib"


def test_the_entry_is_a_path_a_name_and_arguments() -> None:
    assert command_line(spec()) == ("python3", "/panorama/app.py")
    assert command_line(spec(path="", arguments=["--fast"])) == ("python3", "/panorama/app.py", "--fast")
    assert command_line(spec(path="python3.7")) == ("python3.7", "/panorama/app.py")
    assert command_line(spec(path="bash", name="/panorama/run.sh")) == ("bash", "/panorama/run.sh")
    assert command_line(spec(path="/panorama/program", name="")) == ("/panorama/program",)
