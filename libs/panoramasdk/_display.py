"""What goes out: each media to the output node's sender, by reference where its pixels are still the camera's.

Must not know: how a picture is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

from framelink import Annotations, FramePicture, OutputSender, PixelPicture
from panoramasdk._media import media

if TYPE_CHECKING:
    from panoramasdk._picture import Picture


class Display:
    """One output port that is connected."""

    def __init__(self, sender: OutputSender) -> None:
        self._sender = sender

    def show(self, medias: Sequence[media]) -> None:
        """Send them; whatever there is no time for is dropped, and counted by the sender."""
        for one in medias:
            picture, annotations = one._picture, Annotations(one._rects, one._labels)
            frame = picture.lend() if one._is_untouched() else None
            if frame is not None:
                stream = picture.stream
                by_reference = FramePicture(stream.camera_id, stream.stream_id, frame)
                self._sender.put(by_reference, annotations, _GivingBack(picture))
            else:
                info = picture.info
                own = PixelPicture(picture.stream.stream_id, one._pixels(), info.capture_ns, info.pts_us)
                self._sender.put(own, annotations)

    def collect(self) -> None:
        """Take in what the display has finished with."""
        self._sender.collect()


class _GivingBack:
    """Called when the display has finished. Keeps the picture, and so its slot, until then."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def __call__(self) -> None:
        self._picture.give_back()
