"""The whole of Belvedere as its own processes, by the commands a user types; for tests that look from outside.

    with WholeSystem(tmp_path) as system:            # `belvedere up` and `belvedere appliance run`, on free ports
        url = system.camera("front", clip, "password")        # `belvedere camera serve`
        system.account.register_camera("front", url, CAMERA_USER, "password")
        instance_id = system.deploy(app)                       # packages registered, CreateApplicationInstance
        system.wait_status(instance_id, "DEPLOYMENT_SUCCEEDED", "RUNNING")

What the commands print goes to files in `logs`; leaving the block stops everything, the last started first.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.cookiejar
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from belvedere.appdir import AppFolder
from belvedere.chassis.edge import EdgeError, ask
from belvedere.cli.cloud import CloudAccess, login_url
from belvedere.cli.demo.account import APPLICATION_ROLE, Account
from belvedere.cli.demo.figures import row_of

REPOSITORY = Path(__file__).parents[2]
CAMERA_USER = "camera"
LOOK_EVERY_S = 0.1
START_TIMEOUT_S = 90.0
CHANGE_TIMEOUT_S = 120.0
"""For whatever a test waits for: many times what it takes on an idle machine, so that load makes nothing fail."""
STOP_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 150.0
OVER = ("DEPLOYMENT_FAILED", "REMOVAL_SUCCEEDED")
"""Statuses of instances that the appliance has no more."""
ASK_TIMEOUT_S = 5.0
"""Asked again after it."""
PAGE_TIMEOUT_S = 30.0

Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found | None], timeout_s: float = CHANGE_TIMEOUT_S) -> Found:
    """What `look` gives once that is true. What it looks at lies in other processes, which tell nobody."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        threading.Event().wait(LOOK_EVERY_S)
    return found


def command(*arguments: object) -> list[str]:
    """The command line of `belvedere …`."""
    return [sys.executable, "-m", "belvedere.cli.main", *map(str, arguments)]


def run(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`belvedere …`, to its end."""
    return subprocess.run(
        command(*arguments), cwd=REPOSITORY, env=_environment(env or {}), capture_output=True, text=True,
        timeout=COMMAND_TIMEOUT_S, check=False,
    )  # fmt: skip


class Running:
    """One command that runs until it is stopped."""

    def __init__(self, name: str, logs: Path, arguments: list[str], env: Mapping[str, str]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.output = logs / f"{name}.out"
        with self.output.open("wb") as out, (logs / f"{name}.err").open("wb") as err:
            self.process = subprocess.Popen(
                arguments, cwd=REPOSITORY, env=_environment(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        self.errors = logs / f"{name}.err"

    def line(self, mark: str) -> str:
        """The first line of its output that has `mark` in it, once it is there."""

        def look() -> str | None:
            for line in self.output.read_text().splitlines(keepends=True):
                if mark in line and line.endswith("\n"):
                    return line.strip()
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.errors.read_text()[-2000:]}")
            return None

        return wait_for(f"a line with {mark!r}", look, START_TIMEOUT_S)

    @property
    def is_up(self) -> bool:
        """It has not ended."""
        return self.process.poll() is None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class WholeSystem:
    """A cloud side and one appliance below `folder`. `env`: settings (`BELVEDERE_…`) for all its processes."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.cloud_data, self.appliance_data = folder / "cloud", folder / "appliance"
        self._env = {"BELVEDERE_DISPLAY_RTSP_PORT": "0", "BELVEDERE_DISPLAY_HTTP_PORT": "0", **(env or {})}
        self._stack = contextlib.ExitStack()
        self._running: dict[str, Running] = {}
        self._started: list[str] = []

    def __enter__(self) -> WholeSystem:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            self.start("cloud", "up", "--data", self.cloud_data, "--port", "0").line("ready ")
            self.access = CloudAccess.load(self.cloud_data)
            self.account = Account(self.access, self.folder / "aws-models")
            self.panorama = self.account.panorama
            self.bundle = self.folder / "bundle.zip"
            self.device_id = self.account.provision("appliance", self.bundle)
            self.start("appliance", "appliance", "run", "--data", self.appliance_data, "--bundle", self.bundle)
            self.account.wait_online(self.device_id)
            self.console = Console(self.cloud_data)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str, *arguments: object) -> Running:
        """`belvedere …` in the background; stopped with the system."""
        again = sum(1 for each in self._started if each == name)
        self._started.append(name)
        label = f"{name}-{again + 1}" if again else name
        running = Running(label, self.folder / "logs", command(*arguments), self._env)
        self._running[name] = running
        self._stack.callback(running.stop)
        return running

    def running(self, name: str) -> Running:
        """What was started last under that name."""
        return self._running[name]

    def start_cloud(self) -> None:
        """The cloud side once more, with what it has on disk."""
        self.start("cloud", "up", "--data", self.cloud_data).line("ready ")

    def start_appliance(self) -> None:
        """The appliance once more, with what it has on disk."""
        self.start("appliance", "appliance", "run", "--data", self.appliance_data).line("running")

    def bring_up(self) -> None:
        """Starts what some test has stopped and not started again; asks little where nothing was."""
        if not self.running("cloud").is_up:
            self.start_cloud()
        if not self.running("appliance").is_up:
            self.start_appliance()
        wait_for("the device is ONLINE", lambda: self.connection() == "ONLINE")

    def camera(self, name: str, clip: Path, password: str, port: int = 0) -> str:
        """`belvedere camera serve`; the address."""
        secret = self.folder / f"{name}.password"
        secret.touch(0o600)
        secret.write_text(password)
        serve = ("camera", "serve", clip, "--port", port, "--username", CAMERA_USER, "--password-file", secret)
        return self.start(f"camera-{name}", *serve).line("rtsp://").split()[-1]

    # -- the API ----------------------------------------------------------------------------------------------------

    def deploy(self, app: AppFolder, *, replaces: str | None = None, device_id: str | None = None) -> str:
        """Registers the packages as they are now and creates the instance; its id."""
        self.account.register_packages(app)
        return self.create(app.graph_path.read_text(), app.name, replaces=replaces, device_id=device_id)

    def create(
        self,
        manifest: str,
        name: str,
        *,
        replaces: str | None = None,
        device_id: str | None = None,
        overrides: str | None = None,
    ) -> str:
        """CreateApplicationInstance; the id."""
        answer = self.panorama.create_application_instance(
            Name=name,
            DefaultRuntimeContextDevice=device_id or self.device_id,
            ManifestPayload={"PayloadData": manifest},
            RuntimeRoleArn=f"arn:aws:iam::{self.account.account_id}:role/{APPLICATION_ROLE}",
            **({"ApplicationInstanceIdToReplace": replaces} if replaces else {}),
            **({"ManifestOverridesPayload": {"PayloadData": overrides}} if overrides else {}),
        )
        return str(answer["ApplicationInstanceId"])

    def describe(self, instance_id: str) -> dict[str, Any]:
        """DescribeApplicationInstance."""
        answer: dict[str, Any] = self.panorama.describe_application_instance(ApplicationInstanceId=instance_id)
        return answer

    def wait_status(self, instance_id: str, status: str, health: str | None = None, says: str = "") -> dict[str, Any]:
        """The description once status and health are so and `says` is part of its text."""
        last: list[dict[str, Any]] = [{}]

        def look() -> dict[str, Any] | None:
            last[0] = self.describe(instance_id)
            as_wanted = last[0]["Status"] == status and health in (None, last[0].get("HealthStatus"))
            return last[0] if as_wanted and says in last[0].get("StatusDescription", "") else None

        try:
            return wait_for(f"{status} {health or ''} {says!r}", look)
        except AssertionError as error:
            seen = {key: last[0].get(key) for key in ("Name", "Status", "HealthStatus", "StatusDescription")}
            raise AssertionError(f"{error}; it is {seen}") from None

    def wait_running(self, instance_id: str) -> None:
        """Deployed, healthy, and nothing more to say."""
        self.wait_status(instance_id, "DEPLOYMENT_SUCCEEDED", "RUNNING", "Application deployed successfully.")

    def nodes(self, instance_id: str) -> dict[str, str]:
        """CurrentStatus by node."""
        answer = self.panorama.list_application_instance_node_instances(ApplicationInstanceId=instance_id)
        return {node["NodeInstanceId"]: node["CurrentStatus"] for node in answer["NodeInstances"]}

    def wait_nodes(self, instance_id: str, **wanted: str) -> None:
        """Until these nodes have these statuses: one may be known a moment before another."""
        wait_for(f"{wanted}", lambda: wanted.items() <= self.nodes(instance_id).items())

    def instances(self) -> dict[str, str]:
        """Status of every instance."""
        found: dict[str, str] = {}
        token: dict[str, str] = {}
        while True:
            answer = self.panorama.list_application_instances(MaxResults=25, **token)
            found |= {item["ApplicationInstanceId"]: item["Status"] for item in answer["ApplicationInstances"]}
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}

    def remove(self, *instance_ids: str) -> None:
        """RemoveApplicationInstance of those that run or shall run; returns when all of them are gone."""
        status = self.instances()
        for instance_id in instance_ids:
            if not status[instance_id].startswith("REMOVAL_"):
                self.panorama.remove_application_instance(ApplicationInstanceId=instance_id)
        for instance_id in instance_ids:
            self.wait_status(instance_id, "REMOVAL_SUCCEEDED")

    def remove_all_but(self, *kept: str) -> None:
        """What another test left on the appliance, when it failed or because it is done with it, goes."""
        there = [one for one, status in self.instances().items() if status not in OVER and one not in kept]
        self.remove(*there)

    def connection(self) -> str:
        """DeviceConnectionStatus."""
        return str(self.panorama.describe_device(DeviceId=self.device_id)["DeviceConnectionStatus"])

    def log_streams(self) -> Iterator[tuple[str, str]]:
        """(group, stream) of all logs."""
        for group in self.account.logs.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            for stream in self.account.logs.describe_log_streams(logGroupName=name)["logStreams"]:
                yield name, stream["logStreamName"]

    def log_messages(self, group: str, stream: str) -> Iterator[str]:
        """GetLogEvents, page by page, from the oldest."""
        token: dict[str, str] = {}
        while True:
            answer = self.account.logs.get_log_events(
                logGroupName=group, logStreamName=stream, startFromHead=True, **token
            )
            if not answer["events"]:
                return
            yield from (event["message"] for event in answer["events"])
            token = {"nextToken": answer["nextForwardToken"]}

    # -- the appliance ----------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """`agent.overview`, what `belvedere appliance status` shows; waits while the agent is too busy to answer."""

        def look() -> dict[str, Any] | None:
            try:
                return asyncio.run(ask(self.appliance_data, "agent", "overview", {}, timeout_s=ASK_TIMEOUT_S))
            except EdgeError:
                return None

        return wait_for("the agent answers", look)

    def rows(self, process: str, kind: str) -> list[dict[str, Any]]:
        """What a process of the appliance said last of its cameras, models, …; waits for its first word after a start."""

        def look() -> tuple[list[dict[str, Any]]] | None:
            said = self.overview()[process]
            return (said[kind],) if kind in said else None

        return wait_for(f"{process} tells its {kind}", look)[0]

    def application(self, instance_id: str) -> dict[str, Any]:
        """The supervisor's row of an instance; empty where there is none."""
        return row_of(self.overview(), "supervisor", "applications", instance_id)


class Console:
    """The page's own interface, with a session from `belvedere console`."""

    def __init__(self, cloud_data: Path) -> None:
        self.cookies = http.cookiejar.CookieJar()
        self._open = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies)).open
        self._url = CloudAccess.load(cloud_data).console_url
        link = login_url(cloud_data)
        self.login_token = link.partition("token=")[2]
        with self._open(link, timeout=PAGE_TIMEOUT_S):
            pass

    def get(self, path: str) -> dict[str, Any]:
        """GET /api/…"""
        with self._open(f"{self._url}/api/{path}", timeout=PAGE_TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port at which nobody listens, kept from others; a server that reuses addresses (asyncio's) can take it."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without its own settings of Belvedere, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BELVEDERE_")}
    return {**kept, **settings}
