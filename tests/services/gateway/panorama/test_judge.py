"""AWS's own last model of Panorama against ours, through the same front door.

Runs where BELVEDERE_TEST_PANORAMA_PYTHON names a Python with boto3 up to 1.43.37, the last that knew Panorama.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from belvedere import awsmodel
from tests.support.cloud import REGION
from tests.support.front_door import Door

JUDGE = "BELVEDERE_TEST_PANORAMA_PYTHON"
SCRIPT = Path(__file__).parent / "judged_calls.py"
TIMEOUT_S = 60.0


def run(python: str, door: Door, *arguments: str, **environment: str) -> Any:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    plain |= {
        "AWS_ENDPOINT_URL": door.url,
        "AWS_ACCESS_KEY_ID": door.access_key_id,
        "AWS_SECRET_ACCESS_KEY": door.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        **environment,
    }
    command = [python, str(SCRIPT), *arguments]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_awss_last_client_and_todays_with_our_model_read_the_same(door: Door) -> None:
    python = os.environ.get(JUDGE)
    if not python:
        pytest.skip(f"{JUDGE} names no Python whose boto3 still knows Panorama (up to 1.43.37)")
    panorama = door.client("panorama")
    device = panorama.provision_device(Name="judged", Tags={"a": "b"})
    package = panorama.create_package(PackageName="judged")
    where = (device["DeviceId"], package["PackageId"], device["Arn"])
    theirs = run(python, door, *where)
    ours = run(sys.executable, door, *where, AWS_DATA_PATH=str(awsmodel.model_folder()))
    for mine, judged in zip(ours, theirs, strict=True):
        assert mine == judged
