"""The oldest interpreter that an application may bring, and the oldest numpy with it: Python 3.7 and numpy 1.18, as in the
first base image of AWS Panorama. Looked for on PATH and among pyenv's; numpy comes by pip, once, into `.cache/oldest`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache"
NUMPY = {"3.7": "1.18.0", "3.8": "1.18.0"}
"""By version of Python: the oldest numpy that has a wheel for it."""
INSTALL_TIMEOUT_S = 90.0


def interpreter() -> tuple[str, Path]:
    """(version, program) of the oldest one that is here. Skips the test where there is none."""
    for version in NUMPY:
        # A shim of pyenv may be on PATH for a version that is not switched on.
        if (found := shutil.which(f"python{version}")) and not subprocess.run(
            [found, "-c", ""], capture_output=True
        ).returncode:
            return version, Path(found)
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        if folders := sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")):
            return version, folders[-1]
    pytest.skip(f"needs one of Python {', '.join(NUMPY)}, on PATH or by pyenv")


def oldest_environment() -> Path:
    """The Python of an environment with the oldest interpreter and numpy. Skips the test where it can't be had."""
    version, program = interpreter()
    folder = CACHE / f"oldest-{version}-numpy-{NUMPY[version]}"
    python = folder / "bin" / "python"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "oldest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            install = [str(python), "-m", "pip", "install", "--quiet", f"numpy=={NUMPY[version]}"]
            try:
                for command in ([str(program), "-m", "venv", str(folder)], install):
                    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"{' '.join(error.cmd)}: {error.stderr.strip()[-200:]}")
            except subprocess.TimeoutExpired as error:
                pytest.skip(str(error))
            (folder / "done").touch()
    return python
