"""Logs: one JSON object a line on stderr.

    configure("registry")                       # once, in __main__
    log = get_logger(__name__)
    log.info("device enrolled", device_id=device_id)
    {"timestamp": "…", "level": "info", "process": "registry", "logger": "…", "event": "device enrolled", …}

Must not know where lines go after stderr; `add_sink` lets an edge process ship them. Values of type Secret print as
`***`. Lines of libraries that use `logging` come out in the same form.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import structlog

from belvedere.chassis.secret import Secret, json_default

_encode = json.JSONEncoder(default=json_default, ensure_ascii=False).encode
"""Made once: `json.dumps` makes an encoder a line."""

Sink = Callable[[str, Mapping[str, Any]], None]
"""Gets each line as text and as the fields it has, in the thread that logged it. Must be quick, must not log and must
not raise."""

QUIET = {"nats": logging.WARNING, "asyncio": logging.WARNING, "aiosqlite": logging.WARNING, "alembic": logging.WARNING}
"""Libraries that say too much on INFO."""

_process = ""
_sinks: list[Sink] = []


def configure(process: str, level: int = logging.INFO) -> None:
    """Sets up logging of this OS process; `process` stands in every line that is not bound to another one."""
    global _process
    _process = process
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _finish, _render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(level, least))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; `.bind(device_id=…)` adds fields to all its lines."""
    return structlog.stdlib.get_logger(name)


def add_sink(sink: Sink) -> Callable[[], None]:
    """Hands every line to `sink` too; returns the function that ends it."""
    _sinks.append(sink)

    def remove() -> None:
        _sinks.remove(sink)

    return remove


def _finish(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    line.setdefault("process", _process)
    for key, value in line.items():
        if isinstance(value, Secret):
            line[key] = str(value)
    return line


def _render(_: Any, __: str, line: MutableMapping[str, Any]) -> str:
    first = ("timestamp", "level", "process", "logger", "event")
    ordered = {key: line[key] for key in first if key in line} | {k: v for k, v in line.items() if k not in first}
    text = _encode(ordered)
    for sink in tuple(_sinks):
        sink(text, ordered)
    return text
