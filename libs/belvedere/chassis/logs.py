"""Logs: one JSON object a line on stderr.

    configure("registry")                       # once, in __main__
    log = get_logger(__name__)
    log.info("device enrolled", device_id=device_id)
    {"timestamp": "…", "level": "info", "process": "registry", "logger": "…", "event": "device enrolled", …}

    requests = Repeated(__name__, "request", ("request_id", "status"))     # a line that is said thousands of times a second
    requests.info(request_id, 200)
    requests.later(request_id, 200)                                        # written with its like, LATER_S later at most
    requests.flush()

Must not know where lines go after stderr; `add_sink` lets an edge process ship them. Values of type Secret print as
`***`. Lines of libraries that use `logging` come out in the same form.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from json.encoder import encode_basestring as _quoted
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
_handler: logging.StreamHandler[Any] | None = None


def configure(process: str, level: int = logging.INFO) -> None:
    """Sets up logging of this OS process; `process` stands in every line that is not bound to another one."""
    global _process, _handler
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
    _handler = handler = logging.StreamHandler(sys.stderr)
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


LATER_S = 0.05
"""How long a line of `Repeated.later` waits for others: as long as a decision for its row in the audit trail."""
LATER_LINES = 256
"""Of one kind; when so many wait they are written at once."""

_AS_THEY_STAND = frozenset({int, float})
"""Types whose `repr` is their JSON, for finite numbers."""


class Repeated:
    """One kind of line, said again and again: `get_logger(name).info(event, …)` in the same form, at a tenth of the cost (42 µs
    a line, in a front door whose whole answer takes 250). Fields of the context (structlog's contextvars) are not in it."""

    def __init__(self, name: str, event: str, fields: Sequence[str]) -> None:
        self._name, self._event, self._fields = name, event, tuple(fields)
        self._logger, self._root = get_logger(name), logging.getLogger()
        self._form, self._for_process = "", ""
        self._second, self._second_text = -1, ""
        self._waiting: list[tuple[float, tuple[Any, ...]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def info(self, *values: Any) -> None:
        """One line. `values`: in the order of the fields; numbers finite."""
        if self._odd():
            self._logger.info(self._event, **dict(zip(self._fields, values, strict=True)))
        else:
            self._write([(time.time(), values)])

    def later(self, *values: Any) -> None:
        """As `info`, with the time of now, but written with others that come within LATER_S: a write and a form that is warm cost a
        third. Only within a running loop. What waits is lost if the process is killed; `flush` at an orderly end."""
        if self._odd():
            self._logger.info(self._event, **dict(zip(self._fields, values, strict=True)))
            return
        self._waiting.append((time.time(), values))
        if len(self._waiting) >= LATER_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATER_S, self.flush)

    def flush(self) -> None:
        """Writes what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._waiting = self._waiting, []
        if lines:
            self._write(lines)

    def _odd(self) -> bool:
        """Whether somebody has set up logging in another way than `configure` did, or listens: then lines go the usual way."""
        return _handler is None or self._root.handlers != [_handler] or self._root.level > logging.INFO or bool(_sinks)

    def _write(self, lines: Sequence[tuple[float, tuple[Any, ...]]]) -> None:
        if self._for_process != _process or not self._form:
            head = {"level": "info", "process": _process, "logger": self._name, "event": self._event}
            names = "".join(f", {_quoted(field)}: %s" for field in self._fields)
            self._form = f'{{"timestamp": "%s", {_encode(head)[1:-1].replace("%", "%%")}{names}}}\n'
            self._for_process = _process
        text = "".join([self._form % (self._at(at), *map(_said, values)) for at, values in lines])
        handler = _handler
        assert handler is not None
        handler.acquire()
        try:
            handler.stream.write(text)
            handler.flush()
        finally:
            handler.release()

    def _at(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1e6):06d}Z"


def _said(value: Any) -> str:
    if type(value) is str:
        return _quoted(value)
    return repr(value) if type(value) in _AS_THEY_STAND else _encode(value)


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
