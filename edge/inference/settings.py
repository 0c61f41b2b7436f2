"""What `edge.inference` can be told from outside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Environment: `BELVEDERE_INFERENCE_<FIELD>`."""

    backend: str = "openvino"
    """Which of `edge.inference.backends` loads the models."""

    threads: int = 0
    """CPU threads one call may use; 0: as many as there are cores."""

    parallel_calls: int = 1
    """Calls of one model computed at the same time. One gives the shortest single call; a machine with many cores
    computes more with several, each slower.
    """

    queue_per_client: int = 8
    """Calls that one client may have waiting at one model; further ones are refused with OVERLOADED."""

    load_wait_s: float = 20.0
    """How long a call to a model that is still being loaded waits before it is refused with LOADING."""

    cached_models: int = 16
    """Converted models kept on disk for a quick start; the longest unused go first."""

    worker_restart_max_s: float = 10.0
    """The longest wait before the worker process that died is started again."""
