"""The session description (RFC 4566) of one video stream. Pure."""

from __future__ import annotations

import base64

from ._nal import H264_SPS, nal_type
from ._rtp import CLOCK_RATE, PAYLOAD_TYPE
from ._source import StreamDescription

TRACK = "trackID=0"
_ENCODING = {"h264": "H264", "hevc": "H265", "mjpeg": "JPEG"}


def make_sdp(description: StreamDescription, *, name: str, address: str, session: int) -> str:
    """SDP for DESCRIBE; `address` is the server's own, as the client reached it."""
    family = "IP6" if ":" in address else "IP4"
    lines = [
        "v=0",
        f"o=- {session} 1 IN {family} {address}",
        f"s={name or 'stream'}",
        f"c=IN {family} {'::' if family == 'IP6' else '0.0.0.0'}",
        "t=0 0",
        "a=tool:belvedere",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
        f"a=rtpmap:{PAYLOAD_TYPE} {_ENCODING[description.codec]}/{CLOCK_RATE}",
        *([f"a=fmtp:{PAYLOAD_TYPE} {_format_parameters(description)}"] if description.codec != "mjpeg" else []),
        f"a=control:{TRACK}",
    ]
    return "\r\n".join(lines) + "\r\n"


def _format_parameters(description: StreamDescription) -> str:
    encoded = [base64.b64encode(unit).decode() for unit in description.parameter_sets]
    if description.codec == "hevc":  # RFC 7798 §7.1
        named = zip(("sprop-vps", "sprop-sps", "sprop-pps"), encoded, strict=False)
        return ";".join(f"{name}={value}" for name, value in named)
    parameters = ["packetization-mode=1"]  # RFC 6184 §8.1
    sps = next((unit for unit in description.parameter_sets if nal_type("h264", unit) == H264_SPS), None)
    if sps is not None and len(sps) >= 4:
        parameters.append(f"profile-level-id={sps[1:4].hex()}")
    if encoded:
        parameters.append("sprop-parameter-sets=" + ",".join(encoded))
    return ";".join(parameters)
