"""One cloud and one set of clients for all tests with AWS's own tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import clients
from tests.support.clients import Clients
from tests.support.front_door import Door, front_door

Aws = Callable[..., Any]


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with front_door(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture(scope="session")
def last_botocore() -> Clients:
    return clients.last_botocore()


WARM = [
    *(["aws", *command] for command in (["logs", "describe-log-groups"], ["s3", "ls"], ["panorama", "list-devices"])),
    ["panorama-cli", "--help"],
]
"""So that the programs have imported what they need."""


@pytest.fixture(scope="session")
def installed_tools() -> Clients:
    return clients.panorama_tools()


@pytest.fixture(scope="session")
def tools(installed_tools: Clients, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """The same, forked instead of started: their start takes longer than what they do."""
    with installed_tools.forked(WARM, tmp_path_factory.mktemp("tools")) as quick:
        yield quick


@pytest.fixture
def aws(door: Door, tools: Clients, tmp_path: Path) -> Aws:
    """Runs one command of the AWS CLI; gives what it printed, read as JSON where it is JSON."""

    def run(*command: str, **options: Any) -> Any:
        printed = tools.run(door, ["aws", *command], cwd=tmp_path, **options).stdout
        try:
            return json.loads(printed)
        except ValueError:
            return printed.strip()

    return run
