"""Which operation a request means: by method and RAW path, from the API model.

Pure. The path is matched before it is decoded, since ids hold slashes (`packageName%2Fcode1`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from belvedere.awsmodel import Operation

Route = tuple[tuple[str, ...], Operation]


@dataclass(frozen=True)
class Match:
    """An operation and what its path says."""

    operation: Operation
    path_values: dict[str, str]
    """Decoded, by wire name; bytes that are no UTF-8 stay as lone surrogates, which validation refuses."""


class Router:
    """Routes by method and number of segments; a fixed segment wins over a variable one."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._routes: dict[tuple[str, int], list[Route]] = {}
        for operation in operations:
            segments = operation.segments
            self._routes.setdefault((operation.method, len(segments)), []).append((segments, operation))
        for routes in self._routes.values():
            routes.sort(key=lambda route: tuple(segment.startswith("{") for segment in route[0]))

    def match(self, method: str, raw_path: str) -> Match | None:
        """None where no operation has this method and path."""
        parts = tuple(raw_path.removeprefix("/").removesuffix("/").split("/"))
        for segments, operation in self._routes.get((method, len(parts)), ()):
            if all(
                part if segment.startswith("{") else part == segment
                for segment, part in zip(segments, parts, strict=True)
            ):
                values = {
                    segment[1:-1]: _decoded(part)
                    for segment, part in zip(segments, parts, strict=True)
                    if segment.startswith("{")
                }
                return Match(operation, values)
        return None


def _decoded(part: str) -> str:
    return unquote_to_bytes(part.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
