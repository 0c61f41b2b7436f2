"""The process that shows pictures on a screen with SDL: `python -m edge.display.sdl --socket FRAMES_SOCKET`.

It takes the newest picture of the ring, hands its planes to SDL as a YUV texture, so that the colours are converted and the
picture is scaled by the graphics hardware where there is any, and waits for the screen's own rhythm. On an appliance without a desktop SDL
draws through the kernel's display driver (kmsdrm); on a desktop it opens a window over the whole screen. Status goes out as JSON lines on stdout:
{"driver", "width", "height", "frames_shown", "latency_ms"}, or {"error"} before it ends. Must not know applications.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import sys
import time
import warnings
from collections import deque
from pathlib import Path
from typing import Any

from belvedere.chassis import logs
from framelink import Frame, FrameReader, FrameTimeout, RingGone

TITLE = b"Belvedere"
FRAME_WAIT_S = 0.25
"""How long to wait for a picture before the screen's own events are looked at."""
STATUS_EVERY_S = 1.0
LATENCIES_KEPT = 300
CONNECT_TIMEOUT_S = 5.0

log = logs.get_logger(__name__)


class ScreenError(Exception):
    """SDL can not use the screen; the message says why."""


class Window:
    """A window over the whole screen."""

    def __init__(self) -> None:
        """Raises ScreenError."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says whose SDL it has found
            import sdl2

        self._sdl = sdl2
        # Its own handlers would take the signals that end this process.
        sdl2.SDL_SetHint(sdl2.SDL_HINT_NO_SIGNAL_HANDLERS, b"1")
        sdl2.SDL_SetHint(sdl2.SDL_HINT_RENDER_SCALE_QUALITY, b"linear")
        self._check(sdl2.SDL_Init(sdl2.SDL_INIT_VIDEO) == 0, "there is no screen that SDL can use")
        sdl2.SDL_DisableScreenSaver()
        sdl2.SDL_ShowCursor(sdl2.SDL_DISABLE)
        mode = sdl2.SDL_DisplayMode()
        self._check(sdl2.SDL_GetDesktopDisplayMode(0, ctypes.byref(mode)) == 0, "the screen does not tell its size")
        # Its own size from the start: without a window manager nobody makes it larger.
        flags = sdl2.SDL_WINDOW_FULLSCREEN_DESKTOP | sdl2.SDL_WINDOW_BORDERLESS
        self._window = sdl2.SDL_CreateWindow(TITLE, 0, 0, mode.w, mode.h, flags)
        self._check(bool(self._window), "no window can be opened")
        self._renderer = sdl2.SDL_CreateRenderer(self._window, -1, sdl2.SDL_RENDERER_PRESENTVSYNC)
        self._check(bool(self._renderer), "the screen can not be drawn on")
        self._texture: Any = None
        self._texture_size = (0, 0)

    @property
    def driver(self) -> str:
        """SDL's name of the way to the screen: KMSDRM, x11, wayland."""
        return str((self._sdl.SDL_GetCurrentVideoDriver() or b"").decode())

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of the screen: width, height."""
        width, height = ctypes.c_int(), ctypes.c_int()
        self._sdl.SDL_GetRendererOutputSize(self._renderer, ctypes.byref(width), ctypes.byref(height))
        return width.value, height.value

    def show(self, frame: Frame) -> None:
        """A picture (I420), as large as fits, in its own proportions. Waits for the screen. Raises ScreenError."""
        sdl, info = self._sdl, frame.info
        if self._texture_size != (info.width, info.height):
            if self._texture:
                sdl.SDL_DestroyTexture(self._texture)
            kind, access = sdl.SDL_PIXELFORMAT_IYUV, sdl.SDL_TEXTUREACCESS_STREAMING
            self._texture = sdl.SDL_CreateTexture(self._renderer, kind, access, info.width, info.height)
            self._check(bool(self._texture), f"a picture of {info.width}x{info.height} can not be made")
            self._texture_size = (info.width, info.height)
        planes = [part for plane in frame.planes() for part in (_address(plane), plane.strides[0])]
        self._check(sdl.SDL_UpdateYUVTexture(self._texture, None, *planes) == 0, "a picture can not be handed over")
        sdl.SDL_RenderClear(self._renderer)
        place = sdl.SDL_Rect(*placed(info.width, info.height, *self.size))
        sdl.SDL_RenderCopy(self._renderer, self._texture, None, ctypes.byref(place))
        sdl.SDL_RenderPresent(self._renderer)

    def closed(self) -> bool:
        """Whether the window or the screen was taken away."""
        event = self._sdl.SDL_Event()
        while self._sdl.SDL_PollEvent(ctypes.byref(event)):
            if event.type == self._sdl.SDL_QUIT:
                return True
            if (
                event.type == self._sdl.SDL_DISPLAYEVENT
                and event.display.event == self._sdl.SDL_DISPLAYEVENT_DISCONNECTED
            ):
                return True
        return False

    def close(self) -> None:
        """Gives the screen back."""
        self._sdl.SDL_Quit()

    def _check(self, well: bool, what: str) -> None:
        if not well:
            raise ScreenError(f"{what}: {self._sdl.SDL_GetError().decode(errors='replace')}")


def placed(width: int, height: int, screen_width: int, screen_height: int) -> tuple[int, int, int, int]:
    """x, y, width and height of a picture on a screen: as large as fits, in its proportions, in the middle."""
    scale = min(screen_width / width, screen_height / height)
    fitted_width, fitted_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (screen_width - fitted_width) // 2, (screen_height - fitted_height) // 2, fitted_width, fitted_height


def _address(plane: Any) -> Any:
    # SDL only reads; the binding wants a pointer without const.
    return ctypes.cast(plane.ctypes.data, ctypes.POINTER(ctypes.c_uint8))


def _tell(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def run(socket: Path) -> int:
    """Shows until the ring ends, the screen is taken away or SIGTERM; the exit status."""
    try:
        window = Window()
    except ImportError as error:
        _tell({"error": f"{error}: install the Python packages PySDL2 and pysdl2-dll"})
        return 1
    except ScreenError as error:
        _tell({"error": str(error)})
        return 1
    shown, latencies, told_s = 0, deque[float](maxlen=LATENCIES_KEPT), 0.0
    try:
        with FrameReader(socket, "screen", connect_timeout_s=CONNECT_TIMEOUT_S) as reader:
            while not window.closed():
                try:
                    with reader.get(FRAME_WAIT_S, bgr=False) as frame:
                        window.show(frame)
                        shown += 1
                        if frame.info.capture_ns > 0:
                            latencies.append((time.monotonic_ns() - frame.info.capture_ns) / 1e6)
                except FrameTimeout:
                    pass  # nothing new: the screen's events are looked at all the same
                if time.monotonic() - told_s >= STATUS_EVERY_S or shown == 1:
                    width, height = window.size
                    row = {"driver": window.driver, "width": width, "height": height, "frames_shown": shown}
                    _tell(row | {"latency_ms": _latency(latencies)})
                    told_s = time.monotonic()
        _tell({"error": "the screen or its window was taken away"})
        return 1
    except RingGone:
        return 0
    except ScreenError as error:
        _tell({"error": str(error)})
        return 1
    finally:
        window.close()


def _latency(latencies: deque[float]) -> dict[str, float] | None:
    kept = sorted(latencies)
    if not kept:
        return None
    return {"p50": round(kept[len(kept) // 2], 2), "p99": round(kept[min(len(kept) - 1, int(len(kept) * 0.99))], 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m edge.display.sdl")
    parser.add_argument("--socket", type=Path, required=True, help="the ring with the pictures")
    logs.configure("screen")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(run(parser.parse_args().socket))
