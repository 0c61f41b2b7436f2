"""Old and new boto3 inside an application find the gateway."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.interpreter import LIBS
from tests.support.oldest_python import INSTALL_TIMEOUT_S, oldest_environment

pytestmark = pytest.mark.timeout(2 * INSTALL_TIMEOUT_S + 150)  # the first test may have to install it

ASK = 'print(boto3.client("s3").get_object(Bucket="bucket", Key="key")["Body"].read().decode())'
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_DEFAULT_REGION": "us-east-1"}
RUN_TIMEOUT_S = 60.0


class Gateway(http.server.BaseHTTPRequestHandler):
    """Gives its own port for every object."""

    def do_GET(self) -> None:
        body = f"{self.path} at {self.server.server_address[1]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def gateway() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def said(python: Path, code: str, **variables: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": LIBS, **KEYS, **variables}
    done = subprocess.run(
        [str(python), "-c", code], env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.peers
@pytest.mark.parametrize("imports", ["import panoramasdk, boto3", "import boto3, panoramasdk"])
def test_a_boto3_that_knows_no_endpoint_variable_finds_the_gateway(gateway: str, imports: str) -> None:
    port = gateway.rpartition(":")[2]
    assert said(oldest_environment(), f"{imports}\n{ASK}", AWS_ENDPOINT_URL=gateway) == f"/bucket/key at {port}"


@pytest.mark.peers
def test_an_endpoint_of_its_own_wins_and_so_does_one_for_the_service(gateway: str) -> None:
    port, nowhere = gateway.rpartition(":")[2], "http://127.0.0.1:9"
    python = oldest_environment()
    given = ASK.replace('"s3"', f'"s3", endpoint_url="{gateway}"')
    assert said(python, f"import panoramasdk, boto3\n{given}", AWS_ENDPOINT_URL=nowhere).endswith(port)
    service = said(python, f"import panoramasdk, boto3\n{ASK}", AWS_ENDPOINT_URL=nowhere, AWS_ENDPOINT_URL_S3=gateway)
    assert service.endswith(port)


def test_a_boto3_that_knows_it_is_left_alone(gateway: str) -> None:
    taught = "hasattr(botocore.session.Session.create_client, '_taught_by_panoramasdk')"
    code = f"import panoramasdk, boto3, botocore.session\n{ASK}\nprint({taught})"
    port = gateway.rpartition(":")[2]
    assert said(Path(sys.executable), code, AWS_ENDPOINT_URL=gateway).split("\n") == [f"/bucket/key at {port}", "False"]


def test_without_any_boto3_nothing_is_missed() -> None:
    code = "import sys\nsys.modules['botocore'] = None\nimport panoramasdk\nprint('botocore.session' in sys.modules)"
    assert said(Path(sys.executable), code) == "False"
