"""What we are measured against, each in an environment of its own below .cache/bench/, made by pip when first needed; the
large one only where the environment says so (BENCH_ROBOFLOW=1), and used without asking where it is there already.

A peer that cannot be had here is left out, with the reason (`PeerAbsent`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / ".cache" / "bench"
INSTALL_TIMEOUT_S = 600.0

MOTO = ("moto[server]==5.2.2", "boto3==1.40.0", "botocore==1.40.0")
"""The last botocore that has Panorama's model is what moto answers by."""
ICEORYX2 = ("iceoryx2==0.10.0",)
ROBOFLOW = ("inference-cpu==1.8.3", "openvino==2026.4.1")
"""With OpenVINO, so that it runs the very model that we run. 7.3 GB, and minutes to install."""
CONSENT = {"roboflow": ("BENCH_ROBOFLOW", 15)}
"""Environments that are made only where this variable is 1: their size, downloads included, in GB."""


class PeerAbsent(Exception):
    """A peer cannot be installed here; the message says why."""


def python_of(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of the peer's environment, which has `requirements`. Raises PeerAbsent."""
    folder = FOLDER / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    if name in CONSENT:
        variable, gigabytes = CONSENT[name]
        if os.environ.get(variable) != "1":
            raise PeerAbsent(
                f"{name}: its environment is not there; {variable}=1 makes it ({gigabytes} GB for a while)"
            )
        free = shutil.disk_usage(FOLDER).free / 1e9
        if free < gigabytes:
            raise PeerAbsent(f"{name}: its environment needs {gigabytes} GB, {free:.0f} are free")
    print(f"making the environment of {name}: {' '.join(requirements)}", flush=True)
    _run(name, [sys.executable, "-m", "venv", "--clear", str(folder)])
    _run(name, [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    stamp.write_text(wanted)
    return python


def _run(name: str, command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerAbsent(f"{name}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PeerAbsent(f"{name}: {said[-1] if said else f'ended with {done.returncode}'}")
