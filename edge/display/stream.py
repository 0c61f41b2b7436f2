"""A video as a source of the RTSP server: all its RTSP viewers share one place among the video's viewers."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from belvedere.rtsp import AccessUnit, Source, SourceError, StreamDescription, join_annexb

from .encoder import EncoderError
from .video import Video


class VideoSource(Source):
    def __init__(self, video: Video) -> None:
        self._video = video

    async def describe(self) -> StreamDescription:
        try:
            found = await self._video.describe()
        except EncoderError as error:
            raise SourceError(str(error)) from error
        return StreamDescription("h264", (found.sps, found.pps))

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        viewer = self._video.join()
        try:
            while (frame := await viewer.next()) is not None:
                sets = (frame.format.sps, frame.format.pps) if frame.keyframe else ()
                yield AccessUnit(join_annexb(sets + frame.units), frame.pts_90k, frame.keyframe)
        finally:
            self._video.leave(viewer)

    def viewer_joined(self) -> None:
        self._video.want_key_frame()
