"""The demo, step by step. Each step is what a user would do; what it starts, it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from belvedere.appdir import AppFolder, CameraNode, add_model_asset, build_container_asset, overrides_document
from belvedere.chassis.edge import ask
from belvedere.chassis.process import Child
from belvedere.chassis.secret import Secret
from belvedere.cli.cloud import CloudAccess, login_url, viewer_credentials
from belvedere.cli.demo.account import Account, Deployment
from belvedere.cli.demo.figures import Counters, Figures, ProcessRow, quantiles, row_of
from belvedere.cli.demo.viewer import Viewer, frames_over
from belvedere.cli.errors import CliError
from belvedere.footage import ensure_clip, ensure_detector
from belvedere.processes import tree

CAMERA_NODE = "front_camera"
"""The abstract camera node of the example's graph."""
CAMERA_PACKAGE = "demo_camera"
CAMERA_USER = "camera"
CODE_PACKAGE = "PEOPLE_COUNTER_CODE"
MODEL_PACKAGE = "PERSON_DETECTOR"
METRIC = ("PeopleCounter", "People")

CLOUD_READY_TIMEOUT_S = 120.0
CAMERA_READY_TIMEOUT_S = 60.0
"""Seconds on an idle machine: whoever waits that long has a machine with much else to do, not a demo that is broken."""
VIDEO_TIMEOUT_S = 90.0
METRIC_TIMEOUT_S = 40.0
OVERVIEW_TIMEOUT_S = 5.0
OVERVIEW_EVERY_S = 0.2
FIRST_OUTPUT_TIMEOUT_S = 30.0
"""Statuses come once a second: the display's may still be the one from before the frame."""
STOP_GRACE_S = 4.0
"""Everything is asked to stop at once, and has this long."""
SUMMARY_TIMEOUT_S = 1.0
"""After Ctrl-C, for the summary of a demo that was live."""
INTERRUPTED = 130
MARKER = "demo.json"
"""Present in a folder that a demo made: only such a folder, or an empty one, is begun anew."""


@dataclass(frozen=True)
class DemoOptions:
    """What the command line asked for."""

    data: Path
    cache: Path
    example: Path
    seconds: float | None
    json_path: Path | None
    clip: Path | None
    camera_url: str | None
    port: int | None


class Demo:
    """One run."""

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._stop = asyncio.Event()
        self._stopped = threading.Event()
        """The same, for threads."""
        self._children: list[Child] = []
        self._begun = time.monotonic()
        self._rtsp = ""
        """The address of the annotated video, for people."""

    async def run(self) -> int:
        """The exit status: 0 when every stage really happened."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            work = asyncio.create_task(self._work())
            stop = asyncio.create_task(self._stop.wait())
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                stop.cancel()
                return work.result()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SUMMARY_TIMEOUT_S):
                    return await work
            return INTERRUPTED
        finally:
            self._stopped.set()
            await self._stop_children()

    def _on_signal(self) -> None:
        self._stop.set()
        self._stopped.set()

    async def _work(self) -> int:
        options = self._options
        clip, detector = await asyncio.to_thread(self._materials)
        _begin_anew(options.data)
        app = self._package(detector)
        camera_url, camera_password = await self._camera(clip)
        account = await self._cloud()
        device_id = await self._appliance(account)
        await asyncio.to_thread(
            account.register_camera, CAMERA_PACKAGE, camera_url, CAMERA_USER if camera_password else "", camera_password
        )
        self._say(f"camera registered: {_without_password(camera_url)}")
        await asyncio.to_thread(account.register_packages, app)
        self._say(f"packages registered: {', '.join(package.name for package in app.packages())}")
        camera = CameraNode(account.account_id, CAMERA_PACKAGE, "1.0", CAMERA_PACKAGE)
        overrides = overrides_document({CAMERA_NODE: [camera]})
        first = await asyncio.to_thread(account.deploy, "people_counter", device_id, app, overrides)
        await asyncio.to_thread(account.wait_running, first.instance_id, self._say_status)
        cold_s = await self._deploy_seconds(first)
        self._say(f"first deployment: {cold_s:.2f} s from CreateApplicationInstance to the first annotated frame")

        self._change_one_line(app)
        await asyncio.to_thread(account.register_packages, app)
        second = await asyncio.to_thread(account.deploy, "people_counter", device_id, app, overrides, first.instance_id)
        await asyncio.to_thread(account.wait_running, second.instance_id, self._say_status)
        warm_s = await self._deploy_seconds(second)
        self._say(f"one changed line: {warm_s:.2f} s; the old code ran until the new one delivered")

        async with self._viewer(device_id, second) as viewer:
            self._say(f"live after {time.monotonic() - self._begun:.1f} s")
            url = await asyncio.to_thread(login_url, self._cloud_folder)
            print(f"\n  live page   {url}\n  RTSP        {self._rtsp}\n", flush=True)
            if options.seconds is None:
                print("  Ctrl-C ends it.\n", flush=True)
            before, since = await self._counters(second), datetime.now(UTC)
            seen, seconds = await asyncio.to_thread(frames_over, viewer, options.seconds, self._stopped)
            overview = await self._overview()
        figures = await self._figures(account, second, overview, before, since, seen, seconds, cold_s, warm_s)
        return self._finish(figures)

    # -- steps ------------------------------------------------------------------------------------------------------

    def _materials(self) -> tuple[Path | None, Path]:
        options = self._options
        options.cache.mkdir(parents=True, exist_ok=True)
        if options.clip is not None and not options.clip.exists():
            raise CliError(f"no video at {options.clip}")
        clip = options.clip
        if clip is None and options.camera_url is None:
            clip = ensure_clip(options.cache, self._say)
        return clip, ensure_detector(options.cache, self._say)

    def _package(self, detector: Path) -> AppFolder:
        app = AppFolder.load(self._options.example, into=self._options.data / "application")
        build_container_asset(app.package(CODE_PACKAGE).folder, app.assets)
        model = app.package(MODEL_PACKAGE).folder
        add_model_asset(model, app.assets, detector, model / "descriptor.json")
        return app

    def _change_one_line(self, app: AppFolder) -> None:
        package = app.package(CODE_PACKAGE).folder
        source = next((package / "src").glob("*.py"))
        source.write_text(source.read_text() + "\n# one changed line\n")
        build_container_asset(package, app.assets)

    async def _camera(self, clip: Path | None) -> tuple[str, str]:
        """The address and password of the camera; ours unless the user named one."""
        if self._options.camera_url is not None:
            return self._options.camera_url, ""
        assert clip is not None
        password = secrets.token_urlsafe(12)
        secret_file = self._options.data / "camera.password"
        descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(password)
        argv = [
            "camera",
            "serve",
            str(clip),
            "--port",
            "0",
            "--username",
            CAMERA_USER,
            "--password-file",
            str(secret_file),
        ]
        child = await self._start("camera", *argv)
        line = await self._line(child, "rtsp://", CAMERA_READY_TIMEOUT_S)
        return line.split()[-1], password

    async def _cloud(self) -> Account:
        argv = ["up", "--data", str(self._cloud_folder)]
        if self._options.port is not None:
            argv += ["--port", str(self._options.port)]
        child = await self._start("cloud", *argv)
        line = await self._line(child, "ready ", CLOUD_READY_TIMEOUT_S)
        self._say(f"cloud side is up: {line.removeprefix('ready ')}")
        access = CloudAccess.load(self._cloud_folder)
        return await asyncio.to_thread(Account, access, self._options.data / "aws-models")

    async def _appliance(self, account: Account) -> str:
        bundle = self._options.data / "certificates-omni_demo.zip"
        device_id = await asyncio.to_thread(account.provision, "demo_appliance", bundle)
        self._say(f"device provisioned: {device_id}")
        await self._start(
            "appliance", "appliance", "run", "--bundle", str(bundle), "--data", str(self._appliance_folder)
        )
        await asyncio.to_thread(account.wait_online, device_id)
        self._say("appliance enrolled and online")
        return device_id

    async def _deploy_seconds(self, deployment: Deployment) -> float:
        """CreateApplicationInstance → the first frame that the application gave the display."""
        deadline = time.monotonic() + FIRST_OUTPUT_TIMEOUT_S
        while time.monotonic() < deadline:
            row = row_of(await self._overview(), "display", "outputs", deployment.instance_id)
            if first_ms := row.get("first_output_at_ms"):
                return (int(first_ms) - deployment.created_at_ms) / 1000
            await asyncio.sleep(OVERVIEW_EVERY_S)
        raise CliError("the application runs, but its first annotated frame was not seen by the display")

    @contextlib.asynccontextmanager
    async def _viewer(self, device_id: str, deployment: Deployment) -> AsyncIterator[Viewer]:
        def find() -> Secret[str]:
            credentials = viewer_credentials(self._cloud_folder, device_id)
            outputs = (o for o in credentials.outputs if o.application_instance_id == deployment.instance_id)
            output = next(outputs, None)
            if output is None:
                raise CliError("the device reports no video for the application yet")
            user, password = credentials.rtsp_username, credentials.rtsp_password
            self._rtsp = f"{output.rtsp_url} (user {user}, password {password})"
            return Secret(output.rtsp_url.replace("rtsp://", f"rtsp://{user}:{password}@"))

        viewer = Viewer(find)
        viewer.start()
        try:
            if not await asyncio.to_thread(viewer.first_frame.wait, VIDEO_TIMEOUT_S):
                raise CliError(f"no picture within {VIDEO_TIMEOUT_S:.0f} s: {viewer.last_error}")
            yield viewer
        finally:
            await asyncio.to_thread(viewer.stop)

    async def _figures(
        self,
        account: Account,
        deployment: Deployment,
        overview: dict[str, Any],
        before: Counters,
        since: datetime,
        seen: int,
        seconds: float,
        cold_s: float,
        warm_s: float,
    ) -> Figures:
        after = Counters.of(overview, deployment.instance_id)
        application = row_of(overview, "supervisor", "applications", deployment.instance_id)
        output = row_of(overview, "display", "outputs", deployment.instance_id)
        processes = [ProcessRow(row["name"], row["cpu_seconds"], row["pss_mb"]) for row in overview["processes"]]
        for child in self._children:
            if child.name != "appliance":
                processes += [ProcessRow(use.name, use.cpu_seconds, use.pss_mb) for use in tree(child.pid)]
        return Figures(
            seconds=seconds,
            frames_decoded=after.decoded - before.decoded,
            frames_delivered=after.delivered - before.delivered,
            frames_inferred=after.inferred - before.inferred,
            frames_displayed=after.displayed - before.displayed,
            frames_seen=seen,
            fps=seen / seconds if seconds else 0.0,
            people_per_frame_mean=await self._people(account, since),
            latency_app_ms=quantiles(application.get("latency_app_ms")),
            latency_display_ms=quantiles(output.get("latency_display_ms")),
            deploy_seconds_cold=cold_s,
            deploy_seconds_warm=warm_s,
            processes=processes,
        )

    async def _people(self, account: Account, since: datetime) -> float | None:
        """The application posts about once a second: its first points may still be under way."""
        begin = since.replace(second=0, microsecond=0)
        deadline = time.monotonic() + (METRIC_TIMEOUT_S if not self._stop.is_set() else 0)
        while True:
            mean = await asyncio.to_thread(account.mean_of_metric, *METRIC, begin)
            if mean is not None or time.monotonic() >= deadline:
                return mean
            await asyncio.sleep(1.0)

    def _finish(self, figures: Figures) -> int:
        print(figures.table(), flush=True)
        if self._options.json_path is not None:
            self._options.json_path.write_text(json.dumps(figures.to_json(), indent=2) + "\n")
        missing = figures.missing()
        for text in missing:
            print(f"belvedere demo: {text}", file=sys.stderr)
        return 1 if missing else 0

    # -- tools ------------------------------------------------------------------------------------------------------

    @property
    def _cloud_folder(self) -> Path:
        return self._options.data / "cloud"

    @property
    def _appliance_folder(self) -> Path:
        return self._options.data / "appliance"

    async def _overview(self) -> dict[str, Any]:
        return await ask(self._appliance_folder, "agent", "overview", {}, timeout_s=OVERVIEW_TIMEOUT_S)

    async def _counters(self, deployment: Deployment) -> Counters:
        return Counters.of(await self._overview(), deployment.instance_id)

    async def _start(self, name: str, *argv: str) -> Child:
        logs = self._options.data / "logs"
        logs.mkdir(exist_ok=True)
        child = await Child.start(
            name,
            [sys.executable, "-m", "belvedere.cli.main", *argv],
            log_file=logs / f"{name}.log",
            stdout=asyncio.subprocess.PIPE,
        )
        self._children.append(child)
        return child

    async def _line(self, child: Child, mark: str, timeout_s: float) -> str:
        """The first line of a child's output that has `mark` in it."""
        assert child.process.stdout is not None
        log_file = self._options.data / "logs" / f"{child.name}.log"
        try:
            async with asyncio.timeout(timeout_s):
                async for raw in child.process.stdout:
                    line = raw.decode().strip()
                    if mark in line:
                        return line
        except TimeoutError:
            raise CliError(f"{child.name} was not ready within {timeout_s:.0f} s; its log: {log_file}") from None
        code = await child.wait()
        raise CliError(f"{child.name} ended with status {code} before it was ready; its log: {log_file}")

    async def _stop_children(self) -> None:
        await asyncio.gather(*(child.stop(STOP_GRACE_S) for child in self._children))

    def _say(self, text: str) -> None:
        print(f"  {time.monotonic() - self._begun:6.1f} s  {text}", flush=True)

    def _say_status(self, text: str) -> None:
        self._say(f"application: {text}")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _begin_anew(folder: Path) -> None:
    """An empty folder with the demo's mark; refuses a folder that holds something else."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise CliError(f"{folder} holds something that no demo made: choose another folder with --data")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("{}\n")
