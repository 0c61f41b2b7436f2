"""Access units become frames. Knows PyAV; must not know where units come from nor where frames go.

A picture is decoded when it is here, and given out at once: threads work within one picture (across pictures each would
keep one back), and there is no parser that waits for the beginning of the next. Only a stream with B-frames holds
pictures back, since it sends them out of order. A new picture size in the stream is followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import av.error
from av.codec.context import Flags as CodecFlags

from belvedere.rtsp import ReceivedUnit, StreamDescription, join_annexb

TIME_BASE = Fraction(1, 90_000)


class Undecodable(Exception):
    """Bits lost on the way, or a picture whose reference was lost."""


class Decoder:
    """The decoder of one connection."""

    def __init__(self, description: StreamDescription, threads: int) -> None:
        context = av.CodecContext.create(description.codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_type = "SLICE"
        context.thread_count = threads
        context.flags |= CodecFlags.copy_opaque | CodecFlags.low_delay
        if description.parameter_sets:
            context.extradata = join_annexb(description.parameter_sets)
        self._context = context

    def decode(self, unit: ReceivedUnit) -> Iterator[tuple[av.VideoFrame, int, int]]:
        """The frames that are complete with this unit, mostly one: each with the arrival of its own last packet
        (CLOCK_MONOTONIC, ns) and the camera's time stamp (us). Raises Undecodable.
        """
        packet = av.Packet(unit.data)
        packet.pts = unit.pts_90k
        packet.time_base = TIME_BASE
        # With B-frames, what comes out is not what was put in last.
        packet.opaque = (unit.last_packet_ns, unit.pts_90k)
        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError as error:
            raise Undecodable from error
        for frame in frames:
            own = frame.opaque
            arrived_ns, pts_90k = own if isinstance(own, tuple) else (unit.last_packet_ns, unit.pts_90k)
            yield frame, arrived_ns, pts_90k * 100 // 9
