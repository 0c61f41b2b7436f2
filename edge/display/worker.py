"""The process that shows: `python -m edge.display.worker --data DIR`, started by the service.

What to show comes as JSON lines on stdin, each the whole wanted set as in `display.apply` (so that the viewer key
stands on no command line), or `{"reasons": {camera id: why it shows nothing}}`; status goes out as JSON lines on stdout, on change and once a second; logs go to stderr. It
ends on SIGTERM, when stdin closes, and when its parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from belvedere.chassis import logs
from belvedere.chassis.paths import EdgePaths
from belvedere.chassis.secret import Secret
from belvedere.chassis.settings import load
from belvedere.chassis.stop import stop_on_signals, within
from belvedere.rtsp import RtspServer
from belvedere.viewer import VIEWER_USER, viewer_rtsp_password
from framelink import OutputReceiver

from .addresses import PortMemory, assign_paths
from .encoder import EncoderOptions
from .ownership import Candidate, owner
from .rings import Rings
from .screen import Screen
from .settings import ENV, Settings
from .stream import VideoSource
from .video import Video
from .wanted import Wanted, WantedOutput
from .web import WebServer

log = logs.get_logger(__name__)

STATUS_CHECK_S = 0.2
"""How soon a change (a first picture, a viewer) is told."""
STATUS_EVERY_S = 1.0
MAX_LINE = 4 * 1024 * 1024
PORTS_FILE = "display.json"
REASONS = "reasons"
"""A line with this member says why cameras show nothing, and leaves the wanted set as it is."""
CLOSE_TIMEOUT_S = 2.0


class Display:
    """All videos of the appliance, and the servers that show them."""

    def __init__(self, paths: EdgePaths, settings: Settings) -> None:
        self._paths = paths
        self._settings = settings
        self._options = EncoderOptions(settings.preset, settings.crf, settings.max_bitrate_kbps)
        self._videos: dict[str, Video] = {}
        self._rtsp_paths: dict[str, str] = {}
        self._rings = Rings(paths.camera_socket)
        self._web = WebServer(settings.host, settings.http_port, self._videos)
        self._rtsp = RtspServer(settings.host, settings.rtsp_port, users={})
        self._receivers: dict[str, OutputReceiver] = {}
        screen_socket = paths.display_socket("screen").with_name("frames.sock")
        self._screen = Screen(screen_socket, settings.screen, Path(settings.drm_folder))
        self._screen_task: asyncio.Task[None] | None = None
        self._screen_owner: str | None = None
        self._order: list[str] = []
        self._outputs: dict[str, WantedOutput] = {}
        self._reasons: Mapping[str, str] = {}

    async def start(self) -> None:
        """Listens. Raises OSError, ListenFailed or framelink's AddressTaken."""
        memory = PortMemory(self._paths.device / PORTS_FILE)
        await memory.listen("rtsp", self._settings.rtsp_port, self._start_rtsp)
        await memory.listen("http", self._settings.http_port, self._start_web)
        self._screen_task = asyncio.create_task(self._screen.run(), name="screen")
        log.info("display listens", host=self._settings.host, rtsp_port=self._rtsp.port, http_port=self._web.port)

    async def _start_rtsp(self, port: int) -> int:
        self._rtsp = RtspServer(self._settings.host, port, users={})
        await self._rtsp.start()
        return self._rtsp.port

    async def _start_web(self, port: int) -> int:
        self._web = WebServer(self._settings.host, port, self._videos)
        await self._web.start()
        return self._web.port

    async def apply(self, wanted: Wanted) -> None:
        """Makes the wanted set so; what is in it as before goes on undisturbed."""
        key = wanted.viewer_key
        self._web.set_key(key)
        self._rtsp.set_users({VIEWER_USER: Secret(viewer_rtsp_password(key.reveal()))} if key else {})
        outputs: dict[str, WantedOutput] = {}
        for output in wanted.outputs:
            outputs.setdefault(output.instance_id, output)
        for instance_id in [known for known in self._videos if known not in outputs]:
            video = self._videos.pop(instance_id)
            await self._close_receiver(instance_id)
            # Only now: at an end of this process the folder stays, since sandboxes have it mounted.
            with contextlib.suppress(FileNotFoundError):
                self._paths.display_socket(instance_id).parent.rmdir()
            await self._rtsp.remove(self._rtsp_paths.pop(instance_id))
            await video.close()
        for output in outputs.values():
            if output.instance_id not in self._videos:
                video = Video(
                    output.instance_id, output.node, output.application, self._options, self._settings.stale_s
                )
                self._videos[output.instance_id] = video
                self._receivers[output.instance_id] = self._open_receiver(video)
        await self._move_paths({output.instance_id: output.application for output in outputs.values()})
        self._outputs = outputs
        self.explain(self._reasons)
        self._order = list(outputs)
        self.choose_screen()
        await self._rings.apply({camera for output in wanted.outputs for camera in output.cameras})
        log.info("outputs applied", instances=sorted(outputs))

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Why each camera would show nothing at this moment, by its id."""
        self._reasons = reasons
        for output in self._outputs.values():
            self._videos[output.instance_id].explain(
                {stream: reasons[camera] for stream, camera in output.streams if camera in reasons}
            )

    async def _move_paths(self, names: dict[str, str]) -> None:
        paths = assign_paths(names.items(), self._rtsp_paths)
        for instance_id, path in tuple(self._rtsp_paths.items()):
            if paths[instance_id] != path:
                await self._rtsp.remove(path)
                del self._rtsp_paths[instance_id]
        for instance_id, path in paths.items():
            if instance_id not in self._rtsp_paths:
                self._rtsp.add(path, VideoSource(self._videos[instance_id]))
                self._rtsp_paths[instance_id] = path

    def _open_receiver(self, video: Video) -> OutputReceiver:
        """The socket of one application. What comes in there is its picture, whatever instance it says it is."""
        path = self._paths.display_socket(video.instance_id)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return OutputReceiver(path, video.receive, self._rings, name=f"display {video.instance_id[-8:]}")

    async def _close_receiver(self, instance_id: str) -> None:
        await asyncio.to_thread(self._receivers.pop(instance_id).close)

    def choose_screen(self) -> None:
        """Gives the screen to whom it belongs now."""
        before = self._screen_owner
        candidates = [Candidate(key, self._videos[key].picture_age_s) for key in self._order if key in self._videos]
        self._screen_owner = owner(candidates, before, self._settings.screen_hold_s) if self._screen.wanted else None
        if self._screen_owner != before:
            if before in self._videos:
                self._videos[before].show_on(None)
            if self._screen_owner is not None:
                log.info("has the screen", instance_id=self._screen_owner)
                self._videos[self._screen_owner].show_on(self._screen)
        if self._screen_owner is None and self._screen.wanted:
            self._screen.put_idle()

    def status(self) -> list[dict[str, Any]]:
        """The rows of `display.status`."""
        return [self._row(video) for video in self._videos.values()]

    def screen_status(self) -> dict[str, Any]:
        """Its member `screen`."""
        return self._screen.status() | {"instance_id": self._screen_owner}

    def _row(self, video: Video) -> dict[str, Any]:
        host, path = self._settings.shown_host, self._rtsp_paths[video.instance_id]
        rtsp, drops = self._rtsp.stats(path), video.drops()
        drops["viewer_behind"] += rtsp.units_dropped
        shown = f"[{host}]" if ":" in host else host
        return {
            "instance_id": video.instance_id,
            "node": video.node,
            "rtsp_url": self._rtsp.url(path, host),
            "websocket_url": f"ws://{shown}:{self._web.port}/video/{video.instance_id}",
            "frames_received": video.received,
            "rects": video.rects,
            "pictures_with_rects": video.pictures_with_rects,
            "labels": video.labels,
            "texts": video.texts(),
            "frames_displayed": video.displayed,
            "frames_dropped": video.replaced + video.unusable + video.beyond,
            "drops": drops,
            "viewers": rtsp.viewers + self._web.viewers(video.instance_id),
            "encoder_starts": video.encoder_starts,
            "latency_display_ms": video.latency_ms(),
            "draw_ms": video.draw_ms(),
            "encode_ms": video.encode_ms(),
            "bytes_out": video.bytes_out,
            "first_output_at_ms": video.first_output_ms,
        }

    async def close(self) -> None:
        if self._screen_task is not None:
            self._screen_task.cancel()
            await asyncio.wait({self._screen_task})
        for instance_id in list(self._receivers):
            await self._close_receiver(instance_id)
        await self._rings.close()
        await asyncio.gather(*(video.close() for video in self._videos.values()))
        await asyncio.gather(self._web.stop(), self._rtsp.stop())


async def _lines() -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line


async def _listen(display: Display, stop: asyncio.Event) -> None:
    try:
        async for line in _lines():
            document = json.loads(line)
            if REASONS in document:
                display.explain(document[REASONS])
            else:
                await display.apply(Wanted.from_json(document))
    finally:
        stop.set()  # the service has gone, or what it said cannot be followed


async def _tell(display: Display) -> None:
    loop = asyncio.get_running_loop()
    told, due = "", 0.0
    while True:
        display.choose_screen()
        rows, screen = display.status(), display.screen_status()
        news = json.dumps(
            [
                screen["state"],
                screen["instance_id"],
                *[(r["instance_id"], r["rtsp_url"], r["viewers"], r["first_output_at_ms"]) for r in rows],
            ]
        )
        if news != told or loop.time() >= due:
            sys.stdout.write(json.dumps({"outputs": rows, "screen": screen}) + "\n")
            sys.stdout.flush()
            told, due = news, loop.time() + STATUS_EVERY_S
        await asyncio.sleep(STATUS_CHECK_S)


async def main(data: Path) -> None:
    """Until stdin closes or SIGTERM. Raises what keeps it from starting."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    display = Display(EdgePaths(data), load(Settings, ENV))
    await display.start()
    tasks = [asyncio.create_task(_listen(display, stop)), asyncio.create_task(_tell(display))]
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*tasks, stopped):
            task.cancel()
        await asyncio.wait({*tasks, stopped})
        await within("display", CLOSE_TIMEOUT_S, display.close())
    for task in done:
        task.result()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m edge.display.worker")
    parser.add_argument("--data", type=Path, required=True, help="the appliance's data folder")
    logs.configure("display")
    asyncio.run(main(parser.parse_args().data))
