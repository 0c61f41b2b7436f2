"""TensorRT-RTX where pip can install it: into .cache/tensorrt, since its wheels and those of CUDA are large and on no
appliance without a GPU.
"""

from __future__ import annotations

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
    stamp = FOLDER / ".installed"
    if not stamp.exists():
        # Without what they ask for: CUDA's libraries come with the second wheel.
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--upgrade",
        ]
        try:
            done = subprocess.run(
                [*command, "--target", str(FOLDER), *WHEELS],
                capture_output=True,
                text=True,
                timeout=INSTALL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"TensorRT-RTX was not installed within {INSTALL_TIMEOUT_S:.0f} s")
        if done.returncode:
            pytest.skip(f"TensorRT-RTX cannot be installed: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
        stamp.touch()
    sys.path.append(str(FOLDER))
    importlib.invalidate_caches()
