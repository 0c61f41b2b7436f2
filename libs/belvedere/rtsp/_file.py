"""A video file as an endless, real-time source: the simulated camera. Packets are passed on as they are, nothing is
converted.

Demuxing runs on a thread of its own; pacing is by the monotonic clock, so that time never runs backwards between two
loops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.video.stream import VideoStream

from ._nal import is_random_access, parameter_sets, split_annexb
from ._source import AccessUnit, Codec, Source, StreamDescription
from .errors import SourceUnreadable, SourceUnsupported

_CODECS: dict[str, Codec] = {"h264": "h264", "hevc": "hevc", "mjpeg": "mjpeg"}
_DEFAULT_FRAME = Fraction(1, 25)
MAX_LAG_S = 1.0
"""A machine that slept or was overloaded this long goes on from now, instead of sending all that it missed at once."""


@dataclass(frozen=True, slots=True)
class _Timed:
    unit: AccessUnit
    due_s: float
    """When it is to be sent, after the start of the source."""


class FileSource(Source):
    """Plays `path` (anything libavformat reads, with H.264, H.265 or MJPEG in it).

    `loop`: start again at the end, with time stamps that go on. `realtime`: pace by the file's own time stamps;
    otherwise as fast as it can be read.
    """

    def __init__(self, path: Path | str, *, loop: bool = True, realtime: bool = True) -> None:
        self._path = Path(path)
        self._loop = loop
        self._realtime = realtime
        self._description: StreamDescription | None = None

    async def describe(self) -> StreamDescription:
        if self._description is None:
            self._description = await asyncio.to_thread(self._read_description)
        return self._description

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"demux {self._path.name}")
        units = self._units()
        try:
            while (timed := await loop.run_in_executor(thread, next, units, None)) is not None:
                if self._realtime:
                    late = loop.time() - (start + timed.due_s)
                    if late > MAX_LAG_S:
                        start += late
                    elif late < 0:
                        await asyncio.sleep(-late)
                yield timed.unit
        finally:
            # Behind what the thread may still be doing; it holds the file and must be the one to close it.
            thread.submit(units.close)
            thread.shutdown(wait=False)

    def _open(self) -> tuple[InputContainer, VideoStream, Codec]:
        try:
            container = av.open(str(self._path))
        except (av.FFmpegError, OSError) as error:
            raise SourceUnreadable(f"{self._path} cannot be opened as video: {error.strerror}") from error
        if not container.streams.video:
            container.close()
            raise SourceUnsupported(f"{self._path} holds no video: give a file with H.264, H.265 or MJPEG video")
        stream = container.streams.video[0]
        codec = _CODECS.get(stream.codec_context.name)
        if codec is None:
            name = stream.codec_context.name
            container.close()
            raise SourceUnsupported(f"{self._path} holds {name} video: convert it to H.264, H.265 or MJPEG first")
        return container, stream, codec

    def _read_description(self) -> StreamDescription:
        """From the first key frame: what the stream itself carries, and the header of an MP4, which the filter puts
        there.
        """
        container, stream, codec = self._open()
        try:
            if codec == "mjpeg":
                return StreamDescription(codec, ())
            for data in self._annexb(container, stream, codec):
                sets = parameter_sets(codec, split_annexb(bytes(data)))
                if sets:
                    return StreamDescription(codec, sets)
        except av.FFmpegError as error:
            raise SourceUnreadable(f"{self._path} cannot be read: {error.strerror}") from error
        finally:
            container.close()
        raise SourceUnreadable(f"{self._path} has no picture that can be decoded: no parameter sets in it")

    @staticmethod
    def _annexb(container: InputContainer, stream: VideoStream, codec: Codec) -> Iterator[av.Packet[VideoStream]]:
        convert = BitStreamFilterContext(f"{codec}_mp4toannexb", in_stream=stream) if codec != "mjpeg" else None
        for packet in container.demux(stream):
            if packet.dts is None and packet.pts is None and packet.size == 0:
                return  # PyAV's flush packet
            yield from convert.filter(packet) if convert is not None else [packet]

    def _units(self) -> Generator[_Timed, None, None]:
        """Runs on the demux thread."""
        offset = Fraction(0)
        while True:
            container, stream, codec = self._open()
            base = end = None
            try:
                time_base = Fraction(stream.time_base or Fraction(1, 90_000))
                frame = 1 / Fraction(stream.average_rate) if stream.average_rate else _DEFAULT_FRAME
                for packet in self._annexb(container, stream, codec):
                    dts = packet.dts if packet.dts is not None else packet.pts
                    pts = packet.pts if packet.pts is not None else dts
                    if dts is None or pts is None:
                        raise SourceUnsupported(
                            f"{self._path} has pictures without time stamps: put it into an MP4 file"
                        )
                    if base is None:
                        base = dts * time_base
                    due = offset + dts * time_base - base
                    shown = offset + pts * time_base - base
                    end = due + (packet.duration * time_base if packet.duration else frame)
                    data = bytes(packet)
                    key = codec == "mjpeg" or (bool(packet.is_keyframe) and is_random_access(codec, split_annexb(data)))
                    yield _Timed(AccessUnit(data, round(shown * 90_000), key), float(due))
            except av.FFmpegError as error:
                raise SourceUnreadable(f"{self._path} cannot be read on: {error.strerror}") from error
            finally:
                container.close()
            if end is None:
                raise SourceUnreadable(f"{self._path} has no pictures")
            if not self._loop:
                return
            offset = end
