"""Which screens are plugged in, as the kernel tells: /sys/class/drm/<card>-<connector>/status."""

from __future__ import annotations

from pathlib import Path

DRM = Path("/sys/class/drm")


def connected(folder: Path = DRM) -> list[str]:
    """Names such as `card0-HDMI-A-1` of the connectors with a screen, sorted; empty where the machine has none.

    A connector that goes while it is read counts as empty: the next look tells.
    """
    found = []
    for status in sorted(folder.glob("card*-*/status")):
        try:
            text = status.read_text().strip()
        except OSError:
            continue
        if text == "connected" and "Writeback" not in status.parent.name:
            found.append(status.parent.name)
    return found
