"""Whether a camera is to be asked for BGR with every frame, by how many of its recent ones the application has looked at.

Converting a frame in advance is quicker and cheaper than having it done when somebody looks, and in vain where nobody does.
So an application that looks at most frames has BGR in advance, another when it looks. Pure.
"""

from __future__ import annotations

RECENT_FRAMES = 16
"""So many frames count, the latest ones the most."""
SELDOM = 0.5
"""With a smaller share of frames looked at, BGR is made on demand …"""
MOSTLY = 0.75
"""… and from this one on in advance again: what comes and goes changes little."""


class Looks:
    """Of one camera. From several threads: a look lost between them is only one of many."""

    def __init__(self) -> None:
        self._share = 1.0
        self._in_advance = True

    def delivered(self) -> None:
        """The application has a new frame."""
        self._share -= self._share / RECENT_FRAMES

    def looked(self) -> None:
        """It has looked at the pixels of a frame, for the first time."""
        self._share += 1 / RECENT_FRAMES

    def wants_in_advance(self) -> bool:
        """Ask for BGR with the next frame."""
        self._in_advance = self._share >= (SELDOM if self._in_advance else MOSTLY)
        return self._in_advance
