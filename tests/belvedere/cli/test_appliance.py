"""`belvedere appliance status`, as a person reads it."""

from __future__ import annotations

from typing import Any

from belvedere.cli.appliance import describe

ANSWER: dict[str, Any] = {
    "device_id": "device-a", "link_up": True, "target_version": 3, "ingest": {}, "display": {},
    "inference": {"models": [
        {"model_id": "1" * 64 + "-FP32-00000000", "state": "loaded", "calls": 5},
        {"model_id": "2" * 64 + "-FP32-00000000", "state": "loaded", "calls": 0},
    ]},
    "supervisor": {"applications": [
        {"instance_id": "applicationInstance-a", "state": "running", "frames_taken": 4, "frames_put": 3, "restarts": 0}
    ]},
    "names": {
        "applications": {"applicationInstance-a": "people"},
        "models": {"1" * 64 + "-FP32-00000000": ["detector", "finder"]},
    },
    "processes": [
        {"name": "edge.agent", "pid": 1, "parent_pid": 0, "cpu_seconds": 1.0, "pss_mb": 20.0, "instance_id": None},
        {"name": "keeper.py", "pid": 2, "parent_pid": 1, "cpu_seconds": 0.1, "pss_mb": 7.0,
         "instance_id": "applicationInstance-a"},
    ],
}  # fmt: skip


def test_models_applications_and_their_processes_are_named() -> None:
    lines = describe(ANSWER).splitlines()
    assert lines[1:] == [
        "model        detector, finder  111111111111  loaded  5 calls",
        "model        222222222222  loaded  0 calls",
        "application  people  applicationInstance-a  running  4 frames taken  3 put  0 restarts",
        "process      edge.agent                    1.0 s cpu     20.0 MB",
        "process      keeper.py                     0.1 s cpu      7.0 MB  people  applicationInstance-a",
    ]
