"""The command line and the environment that an application is started with. Pure.

Source: the container contract of AWS Panorama: PATH, TERM, `container`, AWS_REGION and AppGraph_Uid are set;
Dockerfile ENV and CMD are not; the entry is `<path> <name> [arguments]` with the descriptor's environment.
"""

from __future__ import annotations

from belvedere.chassis.secret import Secret
from edge.supervisor.sdk import AWS_MODELS
from edge.supervisor.spec import AppSpec

GATEWAY_PORT = 8700
"""On the sandbox's loopback: leads to the gateway."""
CREDENTIALS_PORT = 8701
"""On the sandbox's loopback: the credentials endpoint."""

SDK_TARGET = "/opt/belvedere/sdk"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_ENTRY = "python3"


def command_line(spec: AppSpec) -> tuple[str, ...]:
    """The arguments to execute; the first is found by PATH in the sandbox."""
    path = DEFAULT_ENTRY if spec.entry.path in ("", "$default") else spec.entry.path
    name = (spec.entry.name,) if spec.entry.name else ()
    return (path, *name, *spec.entry.arguments)


def environment(spec: AppSpec, *, path: str = DEFAULT_PATH, token: Secret[str] | None = None) -> dict[str, str]:
    """The whole environment. `token` opens the credentials endpoint; None: the application has no role.

    The entry's own variables win, but for PYTHONPATH, whose front stays ours: the SDK must be found before another of
    its name.
    """
    wanted = {
        "PATH": path,
        "HOME": "/root",
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "container": "podman",
        # Lines reach the log when they are written, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
        # What its threads were doing reaches the log when it crashes, and when it hangs and is aborted (hang.py).
        "PYTHONFAULTHANDLER": "1",
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{GATEWAY_PORT}",
        "AWS_DATA_PATH": f"{SDK_TARGET}/{AWS_MODELS}",
        # There is none in the sandbox; without this, boto3 spends seconds looking for it.
        "AWS_EC2_METADATA_DISABLED": "true",
        "AppGraph_Uid": spec.instance_id,
        **spec.entry.environment,
    }
    own_path = spec.entry.environment.get("PYTHONPATH")
    wanted["PYTHONPATH"] = f"{SDK_TARGET}:{own_path}" if own_path else SDK_TARGET
    if token is not None:
        wanted["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{CREDENTIALS_PORT}/credentials"
        wanted["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = token.reveal()
    return wanted
