"""Reads session descriptions (RFC 4566) as cameras write them: whatever is odd in them is left out, not refused. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from ._nal import parameter_sets
from ._source import Codec
from .errors import ProtocolError, StreamUnsupported

MAX_MEDIA = 64
_CODECS: dict[str, Codec] = {"H264": "h264", "H265": "hevc", "HEVC": "hevc", "JPEG": "mjpeg"}
_NAMES = {"MP4V-ES": "mpeg4", "MPV": "mpeg2video", "MP2T": "mpegts", "H263-1998": "h263"}
_STATIC = {26: "JPEG", 31: "H261", 32: "MPV", 33: "MP2T", 34: "H263"}
_SETS = ("sprop-vps", "sprop-sps", "sprop-pps", "sprop-parameter-sets")
_SIZE = re.compile(r"(?:\d{1,3}\s+)?(\d{1,5})[-,x]\s*(\d{1,5})")
_ATTRIBUTE = re.compile(r"(\d{1,3})\s+(.*)")


@dataclass(frozen=True, slots=True)
class VideoMedia:
    """The video that is set up."""

    codec: Codec
    payload_type: int
    clock_rate: int
    control: str
    """As it stands there: absolute, relative, `*`, or "" when it is missing."""
    session_control: str
    parameter_sets: tuple[bytes, ...]
    """NAL units without start codes; often empty, since they come in the stream as well."""
    size: tuple[int, int] | None = None
    """Width and height, where the description says them: JPEG needs it above 2040 pixels."""


@dataclass(slots=True)
class _Media:
    kind: str
    payload_types: list[int] = field(default_factory=list)
    encodings: dict[int, tuple[str, int]] = field(default_factory=dict)
    parameters: dict[int, str] = field(default_factory=dict)
    control: str = ""
    size: tuple[int, int] | None = None


def read_sdp(body: bytes) -> VideoMedia:
    """The first video of H.264 or H.265, or else of JPEG. Raises StreamUnsupported, naming what there is instead, and ProtocolError for
    what is no SDP.
    """
    session = _Media("")
    media: list[_Media] = []
    lines = body.decode("utf-8", "replace").splitlines()
    if not any(line.startswith(("v=", "m=")) for line in lines):
        raise ProtocolError("the server's description of the stream is no SDP")
    for line in lines:
        key, _, value = line.strip().partition("=")
        if key == "m" and len(media) < MAX_MEDIA:
            kind, *rest = value.split()[:64] or [""]
            media.append(_Media(kind.lower(), [int(text) for text in rest[2:] if text.isdecimal() and len(text) < 4]))
        elif key == "a":
            _attribute(media[-1] if media else session, value)
    found: list[str] = []
    second: VideoMedia | None = None
    for one in media:
        if one.kind != "video":
            continue
        for payload_type in one.payload_types:
            encoding, rate = one.encodings.get(
                payload_type, (_STATIC.get(payload_type, f"type {payload_type}"), 90_000)
            )
            codec = _CODECS.get(encoding)
            if codec is None:
                found.append(_NAMES.get(encoding, encoding.lower()))
            elif codec == "mjpeg":
                second = second or VideoMedia(codec, payload_type, rate, one.control, session.control, (), one.size)
            else:
                given = _parameters(one.parameters.get(payload_type, ""))
                _refuse_interleaving(given)
                sets = parameter_sets(codec, _sets(given))
                return VideoMedia(codec, payload_type, rate, one.control, session.control, sets, one.size)
    if second is not None:
        return second
    raise _unsupported(media, tuple(found))


def _attribute(media: _Media, value: str) -> None:
    name, _, text = value.partition(":")
    name, text = name.strip().lower(), text.strip()
    if name == "control":
        media.control = text
        return
    if name in ("framesize", "x-dimensions"):  # RFC 6064 §3: "26 1920-1080"; "1920,1080" of some cameras
        size = _SIZE.fullmatch(text)
        media.size = (int(size[1]), int(size[2])) if size else None
        return
    match = _ATTRIBUTE.match(text) if name in ("rtpmap", "fmtp") else None
    if match is None:
        return
    if name == "fmtp":
        media.parameters[int(match[1])] = match[2]
        return
    encoding, _, rest = match[2].partition("/")
    rate = rest.partition("/")[0].strip()
    hertz = int(rate) if rate.isdecimal() and len(rate) <= 9 else 0
    media.encodings[int(match[1])] = (encoding.strip().upper(), hertz or 90_000)


def _parameters(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _sets(given: dict[str, str]) -> list[bytes]:
    units = []
    for name in _SETS:
        for encoded in given.get(name, "").split(","):
            try:
                unit = base64.b64decode(encoded.strip() + "=" * (-len(encoded.strip()) % 4))
            except (binascii.Error, ValueError):
                continue  # they come in the stream as well
            # Some cameras put the start code in front, which does not belong here.
            unit = unit.removeprefix(b"\0").removeprefix(b"\0\0\1")
            if len(unit) > 3:
                units.append(unit)
    return units


def _refuse_interleaving(given: dict[str, str]) -> None:
    """Pictures out of order would have decoding order numbers in every packet; no camera does it."""
    if given.get("packetization-mode") == "2" or given.get("sprop-max-don-diff", "0") not in ("0", ""):
        raise StreamUnsupported(
            "the stream is sent in interleaved mode (packets out of decoding order); switch it off on the camera"
        )


def _unsupported(media: list[_Media], found: tuple[str, ...]) -> StreamUnsupported:
    if found:
        return StreamUnsupported(f"the stream is {', '.join(found)}; switch it to H.264, H.265 or MJPEG", found)
    kinds = tuple(dict.fromkeys(one.kind for one in media))
    if kinds == ("audio",):
        return StreamUnsupported("the stream has only sound in it, no video", kinds, only_sound=True)
    return StreamUnsupported(f"the stream has no video in it, only {', '.join(kinds) or 'nothing'}", kinds)
