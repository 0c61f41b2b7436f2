"""Archives and descriptions of applications for these tests."""

from __future__ import annotations

import hashlib
import io
import tarfile
import textwrap
from pathlib import Path
from typing import Any

SAY = """
import json, socket
_control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
_control.connect("/run/belvedere/app/control.sock")
def say(**message):
    _control.send(json.dumps(message).encode())
"""
"""Speaks with the supervisor as the SDK does."""


def archive(folder: Path, files: dict[str, str]) -> Path:
    """A .tar.gz with these files, named by its digest."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    path = folder / hashlib.sha256(raw.getvalue()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw.getvalue())
    return path


def app_spec(data: Path, code: str, instance_id: str = "applicationInstance-1", **changes: Any) -> dict[str, Any]:
    """An AppSpec of a bare application with this code, whose archive lies in `data`."""
    path = archive(data / "assets" / "sha256", {"panorama/app.py": SAY + textwrap.dedent(code)})
    return {
        "instance_id": instance_id,
        "name": "test-app",
        "node": "code_node",
        "rootfs": str(path),
        "entry": {"path": "python3", "name": "/panorama/app.py", "arguments": [], "environment": {}},
        "inputs": {},
        "outputs": {},
        "models": {},
        "region": "us-west-2",
        "account_id": "123456789012",
        "has_role": False,
        **changes,
    }
