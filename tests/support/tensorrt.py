"""TensorRT-RTX where pip can install it: into .cache/tensorrt, since its wheels and those of CUDA are large and on no
appliance without a GPU.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "tensorrt"
WHEELS = (
    "tensorrt-rtx-cu13-bindings==1.7.1.116",
    "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0",
    "cuda-bindings==13.5.0",
    "cuda-pathfinder==1.9.0",
)
INSTALL_TIMEOUT_S = 300.0


def tensorrt_or_skip() -> None:
    """After this `edge.inference.backends.tensorrt` finds a library."""
    if any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx_bindings")):
        return
    FOLDER.parent.mkdir(exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests share the folder
        if not (FOLDER / ".installed").exists():
            _install()
            (FOLDER / ".installed").touch()
    sys.path.append(str(FOLDER))
    importlib.invalidate_caches()


def _install() -> None:
    # Without what they ask for: CUDA's libraries come with the second wheel.
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target", str(FOLDER)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, *WHEELS],
            capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"TensorRT-RTX was not installed within {INSTALL_TIMEOUT_S:.0f} s")
    if done.returncode:
        pytest.skip(f"TensorRT-RTX cannot be installed: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
