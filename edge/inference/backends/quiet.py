"""OpenVINO without its telemetry: the only place that imports it.

`import openvino` reports itself, with a random id kept in the user's home, to its maker's analytics service, from a
process that it forks for that. An appliance tells nobody anything. Where the reporting package cannot be imported,
OpenVINO uses a stub of its own.
"""

from __future__ import annotations

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 - the line above comes first
import openvino.passes  # noqa: E402 - not there otherwise

__all__ = ["openvino"]
