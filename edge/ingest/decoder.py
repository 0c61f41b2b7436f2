"""Access units become frames. Knows PyAV; must not know where units come from nor where frames go.

A picture is decoded when it is here, and given out at once: threads work within one picture (across pictures each would
keep one back), and there is no parser that waits for the beginning of the next. Only a stream with B-frames holds
pictures back, since it sends them out of order. A new picture size in the stream is followed.
"""

from __future__ import annotations

from typing import Any, cast

import av
import av.error
from av.codec.context import Flags as CodecFlags

from belvedere.chassis.logs import get_logger
from belvedere.rtsp import ReceivedUnit, StreamDescription, join_annexb
from edge.ingest import direct
from edge.ingest.hardware import NONE, NoHardware, open_decoder

log = get_logger(__name__)

SOFTWARE = "software"


class Undecodable(Exception):
    """Bits lost on the way, or a picture whose reference was lost."""


class Decoder:
    """The decoder of one connection. `device`: `Settings.decode_device`. `claim`: where the processor may decode to."""

    def __init__(
        self, description: StreamDescription, threads: int, device: str = NONE, claim: direct.Claim | None = None
    ) -> None:
        self._description = description
        self._threads = threads
        self._claim = claim
        self._works = False
        self.device = SOFTWARE
        """What decodes: FFmpeg's device type, or `software`."""
        self.note: str | None = None
        """Why it is not the hardware that was asked for."""
        self._context = self._on_hardware(device) or self._on_processor()

    def decode(self, unit: ReceivedUnit) -> list[tuple[av.VideoFrame, int, int]]:
        """The frames that are complete with this unit, mostly one: each with the arrival of its own last packet
        (CLOCK_MONOTONIC, ns) and the camera's time stamp (us). Raises Undecodable.
        """
        packet = av.Packet(unit.data)
        packet.pts = unit.pts_90k
        # With B-frames, what comes out is not what was put in last.
        packet.opaque = times = (unit.last_packet_ns, unit.pts_90k)
        try:
            frames = self._context.decode(packet)
        except av.error.FFmpegError as error:
            frames = self._decode_otherwise(packet, error)
        if frames:
            self._works = True
        decoded = []
        for frame in frames:
            arrived_ns, pts_90k = cast(tuple[int, int], frame.opaque or times)
            decoded.append((frame, arrived_ns, pts_90k * 100 // 9))
        return decoded

    def restart(self) -> None:
        """The next unit does not follow the last one: it is a key frame, or as good as one."""
        self._context.flush_buffers()

    def _decode_otherwise(self, packet: av.Packet[Any], error: av.error.FFmpegError) -> list[av.VideoFrame]:
        if self.device == SOFTWARE or self._works:
            raise Undecodable from error
        # Opened, and it cannot do it: a profile or a size that this device does not know.
        self.note = f"{self.device} does not decode this stream ({error.strerror}); decoding on the processor"
        log.warning("hardware decoder gives up", device=self.device, error=error.strerror)
        self._context = self._on_processor()
        try:
            return self._context.decode(packet)
        except av.error.FFmpegError as again:
            raise Undecodable from again

    def _on_hardware(self, device: str) -> av.VideoCodecContext | None:
        try:
            context, self.device = open_decoder(self._description.codec, device)
        except NoHardware as why:
            if str(why):
                self.note = f"no hardware decodes this camera ({why}); decoding on the processor"
                log.warning("no hardware decoder", setting=device, why=str(why))
            return None
        log.info("hardware decoder", device=self.device)
        return self._prepared(context)

    def _on_processor(self) -> av.VideoCodecContext:
        self.device = SOFTWARE
        context = av.CodecContext.create(self._description.codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_type = "SLICE"
        context.thread_count = self._threads
        if self._claim is not None:
            direct.attach(context, self._claim, self)
        return self._prepared(context)

    def _prepared(self, context: av.VideoCodecContext) -> av.VideoCodecContext:
        context.flags |= CodecFlags.copy_opaque | CodecFlags.low_delay
        if self._description.parameter_sets:
            context.extradata = join_annexb(self._description.parameter_sets)
        return context
