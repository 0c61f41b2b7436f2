"""The SDK's own tests once more, with their applications on the oldest Python and numpy that code assets bring."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.oldest_python import INSTALL_TIMEOUT_S, oldest_environment

HERE = Path(__file__)
TIMEOUT_S = 300.0
"""Ten times what the tests take on an idle machine."""

# It may have to install it first.
pytestmark = pytest.mark.timeout(2 * INSTALL_TIMEOUT_S + TIMEOUT_S + 30)


@pytest.mark.peers
def test_applications_on_the_oldest_python_and_numpy_find_the_whole_sdk() -> None:
    python = oldest_environment()
    others = [str(HERE.with_name(f"test_{subject}.py")) for subject in ("frames", "models", "node", "outputs")]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *others],
        cwd=HERE.parents[2], env={**os.environ, "BELVEDERE_TEST_PYTHON": str(python)},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout[-4000:]
