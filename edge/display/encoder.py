"""H.264 for viewers: no look-ahead, no B-frames, key frames when asked for. Knows no streams, viewers or clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from belvedere.rtsp import parameter_sets, split_annexb

TIME_BASE = Fraction(1, 90_000)
KEY_FRAME_INTERVAL_S = 2.0
NOMINAL_FPS = 30  # for x264's rate control only; the pictures' own time stamps rule


class EncoderError(Exception):
    """The encoder did not take the picture or its settings."""


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What a decoder must know; pictures after a change of size have another one."""

    width: int
    height: int
    sps: bytes
    pps: bytes


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One picture, for all viewers alike."""

    format: StreamFormat
    units: tuple[bytes, ...]
    """NAL units without start codes and without parameter sets."""
    pts_90k: int
    keyframe: bool


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    preset: str
    crf: int
    max_bitrate_kbps: int


class Encoder:
    """One run of x264 for pictures of one size. Used from one thread. Raises EncoderError."""

    def __init__(self, width: int, height: int, options: EncoderOptions) -> None:
        self._last_pts = -1
        self._last_key_pts: int | None = None
        try:
            codec = av.CodecContext.create("libx264", "w")
            assert isinstance(codec, VideoCodecContext)
            codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
            codec.time_base = TIME_BASE
            codec.framerate = Fraction(NOMINAL_FPS)
            codec.thread_count = 1
            codec.flags |= Flags.global_header
            codec.options = {
                "preset": options.preset,
                "tune": "zerolatency",
                "profile": "main",
                "crf": str(options.crf),
                "maxrate": f"{options.max_bitrate_kbps}k",
                "bufsize": f"{options.max_bitrate_kbps}k",
                "forced-idr": "1",
                "g": "100000",
                "x264-params": "scenecut=0",
            }
            codec.open()
        except (av.FFmpegError, ValueError) as error:
            raise EncoderError(f"x264 does not start for {width}x{height}: {error}") from error
        self._codec = codec
        sets = parameter_sets("h264", split_annexb(bytes(codec.extradata or b"")))
        if len(sets) != 2:
            raise EncoderError("x264 gave no parameter sets")
        self.format = StreamFormat(width, height, *sets)

    def encode(self, frame: av.VideoFrame, pts_90k: int, key: bool) -> EncodedFrame:
        """The picture, encoded. `pts_90k` is moved up where it does not grow; a key frame comes every 2 s and on
        `key`.
        """
        pts = max(pts_90k, self._last_pts + 1)
        self._last_pts = pts
        key = key or self._last_key_pts is None or pts - self._last_key_pts >= KEY_FRAME_INTERVAL_S / TIME_BASE
        if key:
            self._last_key_pts = pts
        frame.pts, frame.time_base = pts, TIME_BASE
        frame.pict_type = PictureType.I if key else PictureType.NONE
        try:
            packets = self._codec.encode(frame)
        except av.FFmpegError as error:
            raise EncoderError(f"x264 failed on a picture: {error}") from error
        units = [unit for packet in packets for unit in split_annexb(bytes(packet))]
        return EncodedFrame(self.format, _pictures_only(units), pts, any(packet.is_keyframe for packet in packets))


def _pictures_only(units: Sequence[bytes]) -> tuple[bytes, ...]:
    sets = parameter_sets("h264", list(units))
    return tuple(unit for unit in units if unit not in sets)
