"""The models of an appliance behind a real call socket, in this process.

with Inference(tmp_path) as inference:
    inference.ready(WantedModel(…))
    with inference.client() as client:
        client.call(…)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.inference.backends import Choice
from edge.inference.frames import FrameSource
from edge.inference.model import WantedModel
from edge.inference.models import Models
from edge.inference.settings import Settings
from framelink import CallClient, CallError, CallServer

WAIT_S = 40.0


class Inference:
    """The keeper, its socket, and clients."""

    def __init__(self, root: Path, settings: Settings, choice: Choice | None = None) -> None:
        self.root = root
        self.changed = threading.Event()
        self.hung: list[str] = []
        self.lost = threading.Event()
        self.models = Models(
            choice or Choice(settings, root / "cache"),
            settings,
            self.changed,
            cache=root / "cache",
            frames=FrameSource(root / "cameras"),
            hung=self.hung.append,
            lost=self.lost.set,
        )
        self.path = root / "calls.sock"
        self.server = CallServer(self.path, self.models.submit, name="test")

    def __enter__(self) -> Inference:
        return self

    def __exit__(self, *_: object) -> None:
        self.models.close()
        self.server.close()

    def client(self, name: str = "app") -> CallClient:
        return CallClient(self.path, name)

    def row(self, model_id: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first row that is as wanted."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            self.changed.clear()
            for row in self.models.rows():
                if row["model_id"] == model_id and wanted(row):
                    return row
            self.changed.wait(0.05)
        raise AssertionError(f"{model_id}: {self.models.rows()}")

    def ready(self, *wanted: WantedModel) -> None:
        """Apply, and wait until all are loaded."""
        self.models.apply(wanted)
        for model in wanted:
            self.row(model.model_id, lambda row: row["state"] == "ready")


def call_in_thread(
    client: CallClient, model_id: str, inputs: dict[str, Any], answers: list[Any], timeout_s: float = WAIT_S
) -> threading.Thread:
    """Its answer, or its error, is added to `answers`."""

    def call() -> None:
        try:
            answers.append(client.call(model_id, inputs, timeout_s))
        except CallError as error:
            answers.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread
