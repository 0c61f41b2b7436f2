"""A disk that is really full: a file system of a few megabytes, in a mount namespace of its own, for code in a process of
its own. Needs no root where plain users may make namespaces."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 60.0


def on_small_disk(folder: Path, size_mb: int, code: str) -> str:
    """What `code` prints, run where `folder` is a file system of `size_mb`. Skips where no namespace can be made; fails with
    the code's traceback."""
    ours = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*ours, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("namespaces can't be made here")
    mount = 'mount -t tmpfs -o size="$1" tmpfs "$2" && exec "$3" -c "$4"'
    ended = subprocess.run(
        [*ours, "sh", "-c", mount, "sh", f"{size_mb}m", folder, sys.executable, textwrap.dedent(code)],
        cwd=REPOSITORY, env={"PYTHONPATH": f"{REPOSITORY / 'libs'}:{REPOSITORY}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
