"""`node`: the application's way to its cameras, parameters, models and outputs."""

from __future__ import annotations

from typing import Any

from panoramasdk._ports import Ports
from panoramasdk._runtime import Runtime, runtime


class node:
    """The business-logic node that this process is.

        class Application(panoramasdk.node):
            def __init__(self):
                self.threshold = self.inputs.threshold.get()

    Everything is set up in `__new__`: subclasses need not call `super().__init__()`. Nodes of one process share their
    connections. Raises NodeError where the process is not an application that Belvedere started.
    """

    inputs: Ports
    """One port per input of the package's interface: `node.inputs.<name>.get()`."""
    outputs: Ports
    """One port per output: `node.outputs.<name>.put(…)`."""
    _runtime: Runtime

    def __new__(cls, *args: Any, **kwargs: Any) -> node:
        self = super().__new__(cls)
        self._runtime = runtime()
        self.inputs = self._runtime.inputs
        self.outputs = self._runtime.outputs
        return self

    def call(self, input: Any = None, name: Any = None, time_out: float | None = None) -> tuple[Any, ...]:
        """Run a model: a tuple of ndarrays, one per output, in the model's order.

        `input` is a dict of arrays by the names of the model's inputs, or one array or media for a model with one
        input; `name` is the model's node in the graph; the two may come in either order. Arrays are cast to the
        model's type, and a missing batch dimension is added. Other threads run meanwhile.

        KeyError for a name that is no model of this node; ValueError for inputs that are missing; TimeoutError after
        `time_out` seconds (five minutes without one, loading included); ModelError where the model cannot be run.
        """
        return self._runtime.models.call(input, name, time_out)
