"""Configuration of the display process, from `BELVEDERE_DISPLAY_*`."""

from __future__ import annotations

from dataclasses import dataclass

ENV = "BELVEDERE_DISPLAY_"


@dataclass(frozen=True)
class Settings:
    host: str = "127.0.0.1"
    """Address to listen on, and the host in the addresses of the video. Video leaves this machine only if this says
    so.
    """
    url_host: str = ""
    """The host in the addresses, where viewers know this machine by another name than `host` ("" = `host`)."""
    rtsp_port: int = 8554
    """RTSP; a free port is taken, and kept, where this one is in use."""
    http_port: int = 8555
    """Video for browsers (WebSocket) and snapshots; a free port is taken, and kept, where this one is in use."""
    preset: str = "superfast"
    """x264's preset: how much CPU time a picture may cost."""
    crf: int = 24
    """x264's quality, lower is better; 24 looks clean at a few Mbit/s."""
    max_bitrate_kbps: int = 8000
    """Ceiling of one stream, over one second."""
    stale_s: float = 3.0
    """A stream without a new picture for so long is darkened and says so."""

    screen: str = "auto"
    """"auto": a screen at a connector of this machine, while one is plugged in and no desktop has it; "on": whatever SDL finds, such as a window
    on a desktop; "off": none.
    """
    screen_hold_s: float = 10.0
    """An application without a new picture for so long gives the screen to the one before it, if that has pictures."""
    drm_folder: str = "/sys/class/drm"
    """Where the kernel tells about connectors."""

    def __post_init__(self) -> None:
        if self.screen not in ("auto", "on", "off"):
            raise ValueError(f'BELVEDERE_DISPLAY_SCREEN is "{self.screen}": auto, on or off are known')

    @property
    def shown_host(self) -> str:
        """The host in the addresses."""
        return self.url_host or self.host
