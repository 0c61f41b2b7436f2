"""What can go wrong with chunked assets.

ChunkError
├── ArchiveInvalid    an archive is broken, or holds what no application may bring
├── DocumentInvalid   a root or an index is not what this version writes
└── ChunkAbsent       a chunk that a document names is not in the store
"""


class ChunkError(Exception):
    """Base of everything about chunks."""


class ArchiveInvalid(ChunkError):
    """An archive can't become an asset: what was wrong, and the member where it was."""

    def __init__(self, problem: str, member: str = "") -> None:
        at = f" ({member[:100]!r})" if member else ""
        super().__init__(f"the archive is refused: {problem}{at}")
        self.problem = problem
        self.member = member


class DocumentInvalid(ChunkError):
    """A root or an index can't be read."""


class ChunkAbsent(ChunkError):
    """A chunk is not in the store."""
