"""The screen at the appliance's HDMI connector: watches whether one is plugged in, runs the process that shows
(`edge.display.sdl`) while one is, and hands it the owner's pictures through a framelink ring.

The drivers of a screen live in that process, not here: when they hang or crash, the other viewers don't notice. Must not know
whose pictures it shows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from belvedere.chassis.logs import get_logger
from belvedere.chassis.process import Child
from framelink import FramelinkError, FrameWriter, PixelFormat

from .composer import GRID_MAX, Composer, Tile, fit, planes_of
from .connectors import connected

log = get_logger(__name__)

CHECK_EVERY_S = 1.0
"""How soon a screen that is plugged in or pulled out is noticed."""
RESTART_MIN_S, RESTART_MAX_S = 1.0, 30.0
HEALTHY_S = 30.0
STOP_GRACE_S = 2.0
RING_SLOTS = 4
"""One that is shown, one that waits, and the two that a ring keeps for its writer."""
IDLE_TITLE = "Belvedere"


def desktop_session(environ: Mapping[str, str]) -> str:
    """Why the screen is not ours to take although one is plugged in, or "". Who names SDL's driver has decided."""
    if not environ.get("SDL_VIDEODRIVER") and (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return "a desktop has the screen; BELVEDERE_DISPLAY_SCREEN=on opens a window over it"
    return ""


class Screen:
    """`put` takes pictures from any thread; what nobody shows costs nothing."""

    def __init__(self, socket: Path, mode: str, drm: Path) -> None:
        """`mode`: "auto" while a connector of `drm` has a screen, "on" always (a window on a desktop), "off" never."""
        self._socket, self._mode, self._drm = socket, mode, drm
        self._lock = threading.Lock()
        self._writer: FrameWriter | None = None
        self._told: dict[str, Any] = {}
        self._state, self._reason = ("off" if mode == "off" else "no_screen"), ""
        self._connectors: list[str] = []
        self._idle: Composer | None = None
        self.dropped = 0
        """Pictures that the screen's process was too slow for."""

    @property
    def wanted(self) -> bool:
        """Whether there is somebody to give pictures to."""
        return self._writer is not None

    def put(self, frame: av.VideoFrame, capture_ns: int) -> bool:
        """A composed picture (yuv420p). Never waits: where the screen is behind, the picture is dropped and counted, and the answer
        is False.
        """
        width, height = frame.width, frame.height
        if width > GRID_MAX[0] or height > GRID_MAX[1]:
            fitted = fit(Tile(0, 0, *GRID_MAX), width, height)
            frame = frame.reformat(fitted.width, fitted.height)
            width, height = frame.width, frame.height
        with self._lock:
            writer = self._writer
            slot = writer.acquire() if writer is not None else None
            if writer is None or slot is None:
                self.dropped += writer is not None
                return writer is None
            for target, source in zip(slot.planes(width, height, PixelFormat.I420), planes_of(frame), strict=True):
                target[:] = source
            writer.publish(
                slot, capture_ns=capture_ns, pts_us=time.monotonic_ns() // 1000, width=width, height=height,
                format=PixelFormat.I420, has_bgr=False,
            )  # fmt: skip
            return True

    def put_idle(self) -> None:
        """The picture of a screen that no application has."""
        self._idle = self._idle or Composer(IDLE_TITLE, stale_s=1.0)
        self.put(self._idle.compose(time.monotonic()), 0)

    def status(self) -> dict[str, Any]:
        """The member `screen` of display.status, without its owner."""
        row = {"state": self._state, "reason": self._reason or None, "connectors": self._connectors}
        shown = {"driver": None, "width": None, "height": None, "frames_shown": 0, "latency_ms": None}
        return row | shown | (self._told if self._state == "showing" else {}) | {"frames_dropped": self.dropped}

    async def run(self) -> None:
        """Until cancelled."""
        if self._mode == "off":
            return
        pause_s = RESTART_MIN_S
        while True:
            self._connectors = await asyncio.to_thread(connected, self._drm)
            if self._mode == "auto" and (taken := desktop_session(os.environ)):
                self._state, self._reason = "no_screen", taken
                return
            if self._mode == "auto" and not self._connectors:
                self._state, self._reason, pause_s = "no_screen", "", RESTART_MIN_S
                await asyncio.sleep(CHECK_EVERY_S)
                continue
            began = time.monotonic()
            unplugged = await self._show()
            if unplugged or time.monotonic() - began > HEALTHY_S:
                pause_s = RESTART_MIN_S
            if not unplugged:
                log.error("screen can not be used; trying again", reason=self._reason, pause_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RESTART_MAX_S)

    async def _show(self) -> bool:
        """One run of the process that shows; whether it ended because the screen was pulled out."""
        self._state, self._told = "starting", {}
        try:
            self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            slot_bytes = GRID_MAX[0] * GRID_MAX[1] * 3 // 2 + 4096
            writer = FrameWriter(self._socket, "screen", slots=RING_SLOTS, slot_bytes=slot_bytes, max_readers=2)
        except (FramelinkError, OSError) as error:
            self._state, self._reason = "failed", str(error)
            return False
        try:
            child = await Child.start(
                "screen",
                [sys.executable, "-m", "edge.display.sdl", "--socket", str(self._socket)],
                stdout=asyncio.subprocess.PIPE,
            )
            with self._lock:
                self._writer = writer
            listening = asyncio.create_task(self._listen(child))
            try:
                return await self._until_ended(listening)
            finally:
                with self._lock:
                    self._writer = None
                listening.cancel()
                await asyncio.wait({listening})
                # Also where this task is cancelled: the process must not outlive it.
                await asyncio.shield(child.stop(STOP_GRACE_S))
        finally:
            await asyncio.to_thread(writer.close)

    async def _until_ended(self, listening: asyncio.Task[None]) -> bool:
        while True:
            done, _ = await asyncio.wait({listening}, timeout=CHECK_EVERY_S)
            if done:
                listening.result()
                self._state = "failed"
                self._reason = self._reason or "the process that shows has ended; the appliance's log says why"
                return False
            self._connectors = await asyncio.to_thread(connected, self._drm)
            if self._mode == "auto" and not self._connectors:
                log.info("screen was pulled out")
                self._state, self._reason = "no_screen", ""
                return True

    async def _listen(self, child: Child) -> None:
        assert child.process.stdout is not None
        self._reason = ""
        while line := await child.process.stdout.readline():
            told = json.loads(line)
            if "error" in told:
                self._reason = told["error"]
            else:
                if self._state != "showing":
                    log.info("screen shows", driver=told["driver"], width=told["width"], height=told["height"])
                self._state, self._told = "showing", told
