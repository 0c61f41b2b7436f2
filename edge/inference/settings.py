"""What `edge.inference` can be told from outside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Environment: `BELVEDERE_INFERENCE_<FIELD>`."""

    backend: str = "auto"
    """`openvino`, `onnxruntime`, `tensorrt`, or `auto`: what is installed and fits each model best (`backends.choice`)."""

    threads: int = 0
    """CPU threads one call may use; 0: measured when a model is loaded."""

    parallel_calls: int = 0
    """Calls of one model computed at the same time, side by side; 0: measured when a model is loaded."""

    batch_max: int = 8
    """Calls of one model that may be computed together; how many are is measured when a model is loaded. 1: no batches."""

    batch_delay_ms: float = 4.0
    """The longest a call waits for others to join its batch. Only where batches pay, never longer than half of what
    computing takes, and only while as many calls were under way at once lately as a larger batch needs.
    """

    latency_max_ms: float = 100.0
    """A batch that takes longer to compute than this is not chosen, however much it would save."""

    trial_s: float = 3.0
    """Time for measuring a model when it is loaded for the first time; 0: no measuring."""

    busy_share: float = 0.15
    """Where others had more than this share of the cores while a model was measured, it is not remembered for the next time, and
    a batch must save more.
    """

    load_twice_mb: int = 128
    """Files up to this size, in MB of 10⁶ bytes, may be held twice where that is quicker: with all cores for a call that
    is alone, and with some each for those that are computed side by side.
    """

    queue_per_client: int = 8
    """Calls that one client may have waiting at one model; further ones are refused with OVERLOADED."""

    load_wait_s: float = 20.0
    """How long a call to a model that is still being loaded waits before it is refused with LOADING."""

    load_limit_s: float = 900.0
    """A model that loads for longer has hung: the process is replaced. TensorRT builds engines for minutes."""

    hang_min_s: float = 10.0
    """A model that computes for longer than this and `hang_factor` times what it took when it was loaded has hung."""

    hang_factor: float = 50.0
    """See `hang_min_s`."""

    silence_s: float = 15.0
    """The worker process says how it is once a second. One that says nothing for so long, and loads no model, is stuck
    and replaced.
    """

    cached_models: int = 16
    """Converted models and engines kept on disk for a quick start, for each backend; the longest unused go first."""

    cached_mb: int = 8192
    """The most disk that they may take, for each backend, in MB of 10⁶ bytes."""

    worker_restart_max_s: float = 10.0
    """The longest wait before the worker process that died is started again."""
