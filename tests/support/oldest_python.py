"""The oldest interpreter that an application may bring, and the oldest numpy with it: Python 3.7 and numpy 1.18, as in the
first base image of AWS Panorama, and a boto3 of that time. Looked for on PATH and among pyenv's; the packages come by pip,
once, into `.cache/oldest-…`.
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
BOTO3 = "1.26.102"
"""Of the time of those code assets, and what panorama-backpack asks for: knows no AWS_ENDPOINT_URL."""
INSTALL_TIMEOUT_S = 90.0
"""For each of two steps."""


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
    folder = CACHE / f"oldest-{version}-numpy-{NUMPY[version]}-boto3-{BOTO3}"
    python = folder / "bin" / "python"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "oldest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            install = [str(python), "-m", "pip", "install", "--quiet", f"numpy=={NUMPY[version]}", f"boto3=={BOTO3}"]
            try:
                for command in ([str(program), "-m", "venv", str(folder)], install):
                    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"{' '.join(error.cmd)}: {error.stderr.strip()[-200:]}")
            except subprocess.TimeoutExpired as error:
                pytest.skip(str(error))
            (folder / "done").touch()
    return python


def base_image(folder: Path, app: str) -> Path:
    """A root filesystem in the shape of AWS's first base image, with `app` as /panorama/app.py: a Python of its own, its
    numpy, and a `panoramasdk.so` beside its modules, which can't be loaded here. Skips the test as above."""
    python = oldest_environment()
    version, _ = interpreter()
    home = Path(_ask(python, "import sys; print(sys.base_prefix)"))
    name = f"python{version}"
    unneeded = shutil.ignore_patterns("test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages", "config-*")
    modules = folder / "usr" / "lib" / name
    shutil.copytree(home / "lib" / name, modules, ignore=unneeded, symlinks=True)
    numpy = Path(_ask(python, "import numpy; print(numpy.__path__[0])"))
    for brought in (numpy, numpy.parent / "numpy.libs"):
        if brought.is_dir():
            shutil.copytree(brought, modules / "site-packages" / brought.name, ignore=unneeded)
    (folder / "usr" / "bin").mkdir()
    shutil.copy(home / "bin" / name, folder / "usr" / "bin" / name)
    for library in _libraries(home / "bin" / name, *modules.rglob("*.so")):
        # Where the loader looks by itself; that of the Python lies beside it.
        target = folder / "usr" / "lib" / library.name if library.is_relative_to(home) else folder / str(library)[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (modules / "lib-dynload" / "panoramasdk.so").write_bytes(b"for another machine")
    (folder / "panorama").mkdir()
    (folder / "panorama" / "app.py").write_text(app)
    return folder


def _ask(python: Path, code: str) -> str:
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _libraries(*programs: Path) -> set[Path]:
    """What `ldd` says they load, of those that lie on the machine."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    paths = {Path(word) for line in told.splitlines() for word in line.split() if word.startswith("/")}
    return {path for path in paths if path.is_file() and path not in programs}
