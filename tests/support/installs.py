"""What some tests need and pip installs the first time, into .cache: installed beside the tests that come before them.

    python -m tests.support.installs peers tensorrt frameworks

By marker. A test that is quicker waits for the lock of what it needs, or installs it itself; what fails here fails there
too, and there says why.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NICE = 10
"""The tests go first."""
STOP_TIMEOUT_S = 10.0

MARKERS = ("tensorrt", "peers", "frameworks")
"""In the order in which the tests come."""
FRAMEWORKS = ("pytorch", "tensorflow", "mxnet", "onnx")


def needs(marker: str) -> list[Callable[[], object]]:
    """What tests with that marker need. Imported here: every run of the tests imports this module."""
    if marker == "tensorrt":
        from tests.support.tensorrt import tensorrt_or_skip

        return [tensorrt_or_skip]
    if marker == "peers":
        from tests.support.clients import last_botocore, panorama_tools
        from tests.support.oldest_python import oldest_environment

        return [oldest_environment, panorama_tools, last_botocore]
    from tests.support.frameworks import framework

    return [partial(framework, name) for name in FRAMEWORKS]


@contextlib.contextmanager
def beside(markers: Iterable[str]) -> Iterator[None]:
    """Inside the block a process of its own installs what tests with these markers need."""
    wanted = [marker for marker in MARKERS if marker in markers]
    if not wanted:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *wanted],
        cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(STOP_TIMEOUT_S)


def main() -> None:
    os.nice(NICE)
    for marker in sys.argv[1:]:
        for install in needs(marker):
            with contextlib.suppress(pytest.skip.Exception):
                install()


if __name__ == "__main__":
    main()
