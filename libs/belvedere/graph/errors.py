"""Errors of the application documents.

GraphError
 ├ DocumentInvalid    one document can't be used: every problem found in it, each with its place
 └ GraphInvalid       the documents together give no runnable graph: every problem, each with its place
RecordError (belvedere.records)
 └ ResolvedGraphError a stored resolved graph can't be read
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from belvedere.records import RecordError


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, and where."""

    place: str
    """`nodes[2].interface`; empty for the whole document."""
    message: str
    """For people: what is wrong and, where it is not plain, what to do."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class GraphError(Exception):
    """Base of this package's errors: carries every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


class DocumentInvalid(GraphError):
    """One document can't be used."""


class GraphInvalid(GraphError):
    """The documents are well formed, but together they give no graph that can run."""


class ResolvedGraphError(RecordError):
    """A stored resolved graph can't be read."""
