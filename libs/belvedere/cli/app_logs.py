"""The log of an application instance, all its streams as one. Blocking, as boto3 is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FOLLOW_EVERY_S = 1.0
"""GetLogEvents has no way to wait for a line."""
PAGE = 1000


@dataclass(frozen=True)
class LogLine:
    """One line."""

    timestamp_ms: int
    stream: str
    message: str

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.timestamp_ms / 1000).strftime("%H:%M:%S.%f")[:-3]
        return f"{when} {self.stream}: {self.message}"


class LogTail:
    """A log group that is read on from where it was read to."""

    def __init__(self, logs: Any, group: str) -> None:
        self._logs = logs
        self._group = group
        self._tokens: dict[str, str] = {}

    def last(self, count: int) -> list[LogLine]:
        """The newest lines of all streams together, oldest first; later reading goes on behind them."""
        lines: list[LogLine] = []
        for stream in self._streams():
            answer = self._events(stream, limit=count) if count else self._events(stream, limit=1)
            lines += self._lines(stream, answer)
            self._tokens[stream] = answer["nextForwardToken"]
        lines.sort(key=lambda line: line.timestamp_ms)
        return lines[-count:] if count else []

    def follow(self) -> Iterator[LogLine]:
        """New lines as they come, for ever; streams that appear later too, from their beginning."""
        while True:
            lines = [line for stream in self._streams() for line in self._new(stream)]
            yield from sorted(lines, key=lambda line: line.timestamp_ms)
            time.sleep(FOLLOW_EVERY_S)

    def _new(self, stream: str) -> list[LogLine]:
        lines: list[LogLine] = []
        while True:
            token = self._tokens.get(stream)
            answer = self._events(stream, limit=PAGE, startFromHead=True, **({"nextToken": token} if token else {}))
            lines += self._lines(stream, answer)
            self._tokens[stream] = answer["nextForwardToken"]
            if answer["nextForwardToken"] == token or len(answer["events"]) < PAGE:
                return lines

    def _events(self, stream: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._logs.get_log_events(logGroupName=self._group, logStreamName=stream, **arguments)
        return answer

    def _streams(self) -> list[str]:
        arguments: dict[str, Any] = {"logGroupName": self._group}
        found: list[str] = []
        while True:
            try:
                answer = self._logs.describe_log_streams(**arguments)
            except self._logs.exceptions.ResourceNotFoundException:
                return found  # it has said nothing yet
            found += [stream["logStreamName"] for stream in answer["logStreams"]]
            if not answer.get("nextToken"):
                return found
            arguments["nextToken"] = answer["nextToken"]

    @staticmethod
    def _lines(stream: str, answer: dict[str, Any]) -> list[LogLine]:
        return [LogLine(event["timestamp"], stream, event["message"].rstrip("\n")) for event in answer["events"]]
