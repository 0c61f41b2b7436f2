"""What the server asks of a source of encoded video. Knows nothing of RTSP, sessions or files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

Codec = Literal["h264", "hevc", "mjpeg"]


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One encoded picture."""

    data: bytes
    """Annex B: NAL units behind start codes, as the encoder or the `*_mp4toannexb` filter gives them. A JPEG file."""
    pts_90k: int
    """Presentation time in 1/90000 s, on the source's own time line; not wrapped."""
    keyframe: bool
    """Decoding can start here (IDR, or IRAP in H.265; every JPEG), given the parameter sets."""


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """What a player must know before the first picture."""

    codec: Codec
    parameter_sets: tuple[bytes, ...]
    """NAL units without start codes, in the codec's order: SPS, PPS; or VPS, SPS, PPS; none of JPEG."""


class Source(ABC):
    """Encoded video that several viewers look at: one `subscribe()` serves them all."""

    @abstractmethod
    async def describe(self) -> StreamDescription:
        """The stream's description, also when nobody looks yet. Raises SourceError."""

    @abstractmethod
    def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        """Starts the video for the first viewer; the generator is closed after the last. Raises SourceError."""

    def viewer_joined(self) -> None:  # noqa: B027 - most sources have nothing to do
        """A viewer waits for its first key frame. A source that makes its own pictures makes one now; others need
        not.
        """
