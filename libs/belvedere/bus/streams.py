"""The hub's streams and buckets: their names, bounds and reasons, made or updated at start. Nothing else makes one."""

from __future__ import annotations

from typing import Any

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.jetstream import ensure_stream

DAY_NS = 24 * 3600 * 10**9
MAX_MESSAGE_BYTES = 1024 * 1024

EVENTS_MAX_AGE_DAYS = 30
EVENTS_MAX_BYTES = 2 * 1024**3
UP_MAX_AGE_DAYS = 7  # read within seconds by logs_metrics, which keeps them; this is for the time it is down
UP_MAX_BYTES = 4 * 1024**3
DUPLICATE_WINDOW_NS = 2 * 3600 * 10**9  # longer than an appliance repeats one batch within one hub outage
DOCUMENT_MAX_BYTES = 512 * 1024**2


def configurations(replicas: int = 1) -> list[dict[str, Any]]:
    """All of them, as JetStream's API takes them. `replicas`: 3 in a cluster."""
    common = {"storage": "file", "num_replicas": replicas, "max_msg_size": MAX_MESSAGE_BYTES, "allow_direct": True}
    queue = common | {"retention": "limits", "discard": "old", "duplicate_window": DUPLICATE_WINDOW_NS}
    # Rollup stays off everywhere: a message with the header `Nats-Rollup: all` would let one device empty a whole
    # stream that others write to as well. Deleting a key works without it.
    document = common | {
        "max_msgs_per_subject": 1,
        "discard": "new",
        "max_bytes": DOCUMENT_MAX_BYTES,
        "deny_delete": True,
        "allow_rollup_hdrs": False,
        "duplicate_window": 120 * 10**9,
    }
    target, reported = subjects.TARGET_BUCKET, subjects.REPORTED_BUCKET
    return [
        queue
        | {
            "name": subjects.EVENTS_STREAM,
            "subjects": [subjects.EVENTS_ALL],
            "max_age": EVENTS_MAX_AGE_DAYS * DAY_NS,
            "max_bytes": EVENTS_MAX_BYTES,
        },
        queue
        | {
            "name": subjects.UP_LOGS_STREAM,
            "subjects": [subjects.UP_LOGS_ALL],
            "max_age": UP_MAX_AGE_DAYS * DAY_NS,
            "max_bytes": UP_MAX_BYTES,
        },
        queue
        | {
            "name": subjects.UP_METRICS_STREAM,
            "subjects": [subjects.UP_METRICS_ALL],
            "max_age": UP_MAX_AGE_DAYS * DAY_NS,
            "max_bytes": UP_MAX_BYTES,
        },
        document
        | {
            "name": subjects.kv_stream(target),
            "subjects": [subjects.kv_keys(target)],
            # The device hears its document without a consumer: what is stored is also sent to dev.<id>.target.
            "republish": {"src": f"$KV.{target}.*", "dest": "dev.{{wildcard(1)}}.target"},
        },
        document | {"name": subjects.kv_stream(reported), "subjects": [subjects.kv_keys(reported)]},
    ]


async def ensure(bus: Bus, replicas: int = 1) -> None:
    """Makes every stream and bucket of the hub, or brings it to the configuration above."""
    for configuration in configurations(replicas):
        await ensure_stream(bus, configuration)
