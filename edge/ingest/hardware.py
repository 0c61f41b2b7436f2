"""Which device decodes: hardware of the appliance where there is some, else the processor. Knows PyAV; not cameras.

Pictures come back into ordinary memory (NV12) and go on as all others do.
"""

from __future__ import annotations

from pathlib import Path

import av
import av.error
from av.codec.hwaccel import HWAccel, hwdevices_available

AUTO, NONE = "auto", "none"


class NoHardware(Exception):
    """No device decodes this; the message says why, one clause a device."""


def candidates(setting: str, root: Path = Path("/")) -> list[tuple[str, str | None]]:
    """(FFmpeg's device type, which one) to try in turn. `setting`: auto · none · a type · type:device."""
    if setting == NONE:
        return []
    if setting != AUTO:
        kind, _, device = setting.partition(":")
        return [(kind, device or None)]
    found: list[tuple[str, str | None]] = []
    if (root / "dev/nvidia0").exists():
        found.append(("cuda", None))
    for node in sorted((root / "dev/dri").glob("renderD*")):
        found += [("vaapi", str(node)), ("qsv", str(node))]
    built_in = hwdevices_available()
    return [(kind, device) for kind, device in found if kind in built_in]


def open_decoder(codec: str, setting: str) -> tuple[av.VideoCodecContext, str]:
    """A decoder on the first device that takes this codec, and that device's type. Raises NoHardware, with an empty message where
    there is nothing to try.
    """
    failed = []
    for kind, device in candidates(setting):
        try:
            context = av.CodecContext.create(codec, "r", hwaccel=HWAccel(kind, device, allow_software_fallback=False))
            if isinstance(context, av.VideoCodecContext) and context.is_hwaccel:
                return context, kind
            failed.append(f"{kind}: not for {codec} in this build of FFmpeg")
        except (av.error.FFmpegError, ValueError, RuntimeError, NotImplementedError) as error:
            failed.append(f"{kind}: {getattr(error, 'strerror', None) or error}")
    raise NoHardware("; ".join(failed))
