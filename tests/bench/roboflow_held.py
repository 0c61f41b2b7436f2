"""B12's peer as a party: the process of `roboflow_pipeline.py`, kept from try to try, since its imports take longer than a try.

It is given the best of several ways to set it up, found in the same run: `CONFIGURATIONS`.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench import machine, peers
from tests.bench.children import NoAnswer, child, line_of

CONFIGURATIONS = (
    ("auto", "throughput"),
    ("every_frame", "throughput"),
    ("auto", "latency"),
)
"""(how a batch of pictures comes together, OpenVINO's hint): see `roboflow_pipeline.py`."""
START_S = 120.0
"""Its imports alone take a quarter of a minute on a quiet machine, and half a minute when nothing of it is in memory."""
OPENING_S = 60.0
"""More than it gives its cameras itself."""

Configuration = tuple[str, str]


class Roboflow:
    """The process, started when it is needed. Raises peers.PeerAbsent where it cannot be had."""

    def __init__(self, folder: Path, detector: Path) -> None:
        self._python = peers.python_of("roboflow", peers.ROBOFLOW)
        self._errors = folder / "roboflow.err"
        self._detector = detector
        self._process: subprocess.Popen[bytes] | None = None

    def attempt(
        self, configuration: Configuration, urls: Sequence[str], warm_s: float, seconds: float
    ) -> tuple[dict[str, int], float]:
        """(answers by camera, the cores that it took while it counted)."""
        process = self._running()
        collection, computation = configuration
        job = {"collection": collection, "computation": computation, "warm_s": warm_s, "seconds": seconds}
        assert process.stdin is not None
        process.stdin.write(json.dumps({**job, "urls": list(urls)}).encode() + b"\n")
        process.stdin.flush()
        line_of(process, self._errors, OPENING_S + warm_s)
        before, began = machine.cpu_seconds(process.pid), time.monotonic()
        time.sleep(seconds - 1.0)  # it ends soon after, and its figure with it
        cores = (machine.cpu_seconds(process.pid) - before) / (time.monotonic() - began)
        said: dict[str, Any] = line_of(process, self._errors, OPENING_S)
        return {str(camera): int(count) for camera, count in said["answers"].items()}, cores

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        script = Path(__file__).with_name("roboflow_pipeline.py")
        self._process = child([str(self._python), str(script), str(self._detector)], self._errors)
        try:
            line_of(self._process, self._errors, START_S)
        except NoAnswer as error:
            self.close()
            said = " ".join(str(error).split())[-120:]
            raise peers.PeerAbsent(f"roboflow: did not begin within {START_S:g} s: {said}") from error
        return self._process
