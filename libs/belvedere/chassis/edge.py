"""What every edge process is: a name on the appliance's local bus, commands, a status, log lines and metrics.

    async def main(me: EdgeProcess) -> None:
        cameras = Cameras(...)

        async def apply(body: dict[str, Any]) -> dict[str, Any] | None:   # request edge.ingest.apply
            await cameras.apply(body["cameras"])                          # to refuse: raise CommandFailed("CODE", "…")
            me.publish_status(cameras.status())
            return None                                                   # answers {"ok": true}; a dict is added to it

        await me.command("apply", apply)
        me.tasks.start("status", cameras.watch(me.publish_status))        # a task that fails ends the process
        await me.stop.wait()

    if __name__ == "__main__":
        run("ingest", main)                                               # python -m edge.ingest --data DIR

From outside: `await ask(data, "agent", "status", {}, timeout_s=5)`.

Must not know what the process does. The address and the seed of the bus come from DATA/run/bus.json; the connection is
kept for ever. The status goes out on change and once a second. Log lines (structlog, logging) go to stderr and,
batched, to group /aws/panorama/devices/<id>, stream occ_log.

    EdgeError
    ├── CommandFailed     the process answered with an error: `code`, `message`
    ├── EdgeUnavailable   (a ConnectionError) no bus, or nobody answers there
    └── EdgeTimeout       (a TimeoutError) the process did not answer in time
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from belvedere.bus import subjects
from belvedere.bus.client import Credentials
from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import BusError, RequestTimeout
from belvedere.chassis import logs
from belvedere.chassis.errors import BelvedereError
from belvedere.chassis.paths import EdgePaths
from belvedere.chassis.secret import Secret
from belvedere.chassis.shipping import Shipper
from belvedere.chassis.stop import Tasks, stop_on_signals, within

STATUS_INTERVAL_S = 1.0
REQUEST_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 15.0
"""For the first connection; the runner starts the bus before the processes."""
FLUSH_TIMEOUT_S = 1.0
"""For the last log lines at the end."""
CLOSE_TIMEOUT_S = 1.0
APPLIANCE_STREAM = "occ_log"

Handler = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any] | None]]

log = logs.get_logger(__name__)


class EdgeError(Exception):
    """Base of what goes wrong between edge processes."""


class CommandFailed(EdgeError):
    """The process answered with an error; raised by a handler, this is what its caller gets."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class EdgeUnavailable(EdgeError, ConnectionError):
    """There is no local bus, or nobody listens to that command."""


class EdgeTimeout(EdgeError, TimeoutError):
    """The process is there and did not answer in time."""


def device_log_group(device_id: str) -> str:
    """Log group of an appliance's own processes."""
    return f"/aws/panorama/devices/{device_id}"


class EdgeProcess:
    """One edge process; an async context manager."""

    def __init__(self, name: str, data: Path, *, device_id: str | None = None, handle_signals: bool = True) -> None:
        """`name`: "ingest". `device_id`: from device/config.json where None. `handle_signals`: SIGTERM and SIGINT set
        `stop`."""
        self.name = name
        self.paths = EdgePaths(data)
        self.stop = asyncio.Event()
        """Set when the process is to end."""
        self.tasks = Tasks(self.stop)
        """Background tasks: one that fails ends the process."""
        self.device_id = device_id or ""
        self._handle_signals = handle_signals
        self._bus: Bus | None = None
        self._shipper: Shipper | None = None
        self._remove_sink: Callable[[], None] | None = None
        self._background = Tasks(self.stop)
        self._status: Mapping[str, Any] | None = None
        self._status_changed = asyncio.Event()

    @property
    def bus(self) -> Bus:
        """The local bus, for what goes beyond commands and status."""
        if self._bus is None:
            raise RuntimeError("the edge process is not open: use it in `async with`")
        return self._bus

    @property
    def shipper(self) -> Shipper:
        """Counters of dropped log entries and metrics."""
        if self._shipper is None:
            raise RuntimeError("the edge process is not open: use it in `async with`")
        return self._shipper

    async def __aenter__(self) -> "EdgeProcess":
        if self._handle_signals:
            stop_on_signals(self.stop)
        if not self.device_id:
            self.device_id = _device_id(self.paths)
        self._bus = await _connect(self.paths, self.name)
        self._shipper = Shipper(self.name, self._bus)
        self._remove_sink = logs.add_sink(self._ship_line)
        self._background.start("shipper", self._shipper.run())
        self._background.start("status", self._publish_statuses())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        await self.tasks.close()
        await self._background.close()
        if self._remove_sink is not None:
            self._remove_sink()
        await within("last log lines", FLUSH_TIMEOUT_S, self.shipper.flush())
        await within("local bus", CLOSE_TIMEOUT_S, self.bus.close())

    async def command(self, name: str, handler: Handler) -> None:
        """Answers `edge.<process>.<name>` with `handler(body)`, one request after the other, from when this returns
        on."""

        async def answer(message: Message) -> None:
            if not message.reply:
                return  # a status of ours: "agent.status" is a command and a publication
            await message.respond(await _answer(f"{self.name}.{name}", handler, message))

        await self.bus.subscribe(subjects.edge_command(self.name, name), answer)

    async def request(
        self, process: str, command: str, body: Mapping[str, Any], timeout_s: float = REQUEST_TIMEOUT_S
    ) -> dict[str, Any]:
        """Asks another edge process. Returns its answer; raises CommandFailed, EdgeUnavailable, EdgeTimeout."""
        return await _request(self.bus, process, command, body, timeout_s)

    def publish_status(self, status: Mapping[str, Any]) -> None:
        """The status from now on: goes out at once where it differs, and every STATUS_INTERVAL_S."""
        if status != self._status:
            self._status = dict(status)
            self._status_changed.set()

    async def on_status(self, process: str, handler: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Calls `handler` with every status that `process` publishes."""

        async def deliver(message: Message) -> None:
            if not message.reply:
                await handler(dict(message.json()))

        await self.bus.subscribe(subjects.edge_status(process), deliver)

    def log(
        self,
        message: str,
        *,
        group: str | None = None,
        stream: str = APPLIANCE_STREAM,
        timestamp_ms: int | None = None,
        instance_id: str | None = None,
    ) -> None:
        """Sends a line that is not this process's own, such as an application's output. `group`: the appliance's where
        None."""
        self.shipper.log(
            group or device_log_group(self.device_id),
            stream,
            message,
            timestamp_ms=timestamp_ms,
            instance_id=instance_id,
        )

    def metric(
        self,
        name: str,
        value: float,
        *,
        unit: str = "None",
        dimensions: Mapping[str, str] | None = None,
        namespace: str = "PanoramaDeviceMetrics",
    ) -> None:
        """Sends a value; many within two seconds become one datum."""
        self.shipper.metric(namespace, name, value, unit=unit, dimensions=dimensions)

    def _ship_line(self, text: str, line: Mapping[str, Any]) -> None:
        self.shipper.log(device_log_group(self.device_id), APPLIANCE_STREAM, text)

    async def _publish_statuses(self) -> None:
        while True:
            try:
                async with asyncio.timeout(STATUS_INTERVAL_S):
                    await self._status_changed.wait()
            except TimeoutError:
                pass  # nothing new: say the same again
            self._status_changed.clear()
            if self._status is not None and self.bus.connected:
                try:
                    await self.bus.publish(subjects.edge_status(self.name), self._status)
                except BusError as error:
                    log.debug("status not sent; the next one is due in a second", error=str(error))


async def ask(
    data: Path, process: str, command: str, body: Mapping[str, Any], timeout_s: float = REQUEST_TIMEOUT_S
) -> dict[str, Any]:
    """One request to an edge process of the appliance in `data`, from outside. Raises as EdgeProcess.request."""
    if not (data / "run").exists():  # a question makes no folders
        raise EdgeUnavailable(f"{data / 'run'} is not there: is the appliance enrolled and running?")
    bus = await _connect(EdgePaths(data), "cli", timeout_s)
    try:
        return await _request(bus, process, command, body, timeout_s)
    finally:
        await bus.close()


def run(name: str, main: Callable[[EdgeProcess], Awaitable[None]]) -> NoReturn:
    """The `__main__` of an edge process: `--data DIR`, logs, bus, signals; exits 1 where `main` or a task failed."""
    parser = argparse.ArgumentParser(prog=f"python -m edge.{name}")
    parser.add_argument("--data", type=Path, required=True, help="the appliance's data folder")
    options = parser.parse_args()
    logs.configure(name)
    try:
        failed = asyncio.run(_run(name, options.data, main))
    except EdgeError as error:
        log.error("cannot start", error=str(error))
        sys.exit(1)
    sys.exit(1 if failed else 0)


async def _run(name: str, data: Path, main: Callable[[EdgeProcess], Awaitable[None]]) -> bool:
    async with EdgeProcess(name, data) as me:
        try:
            await main(me)
        except Exception:
            log.exception("failed")
            return True
        return me.tasks.failed is not None


async def _connect(paths: EdgePaths, name: str, timeout_s: float = CONNECT_TIMEOUT_S) -> Bus:
    try:
        document = json.loads(paths.bus_file.read_text())
        url, seed = str(document["url"]), Secret(str(document["nkey_seed"]))
    except (OSError, ValueError, KeyError) as error:
        raise EdgeUnavailable(
            f"{paths.bus_file} does not say where the local bus is: is the appliance enrolled and running?"
        ) from error
    try:
        return await Bus.connect(url, Credentials(seed), name, timeout_s=timeout_s)
    except BusError as error:
        raise EdgeUnavailable(f"the local bus does not answer: {error}") from error


def _device_id(paths: EdgePaths) -> str:
    try:
        return str(json.loads(paths.config_file.read_text())["device_id"])
    except (OSError, ValueError, KeyError) as error:
        raise EdgeUnavailable(f"{paths.config_file} names no device: is the appliance enrolled?") from error


async def _request(bus: Bus, process: str, command: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    what = f"{process}.{command}"
    try:
        answer = (await bus.request(subjects.edge_command(process, command), body, timeout_s=timeout_s)).json()
    except RequestTimeout as error:
        raise EdgeTimeout(f"{what} did not answer within {timeout_s:g} s") from error
    except BusError as error:
        raise EdgeUnavailable(f"{what} cannot be asked: {error}") from error
    if not isinstance(answer, dict):
        raise CommandFailed("INVALID_ANSWER", f"{what} answered something that is no JSON object")
    if "error" in answer:
        raise CommandFailed(str(answer["error"].get("code", "")), str(answer["error"].get("message", "")))
    return answer


async def _answer(what: str, handler: Handler, request: Message) -> dict[str, Any]:
    """The answer to one request: a handler's error becomes a typed answer, so that the caller never waits in vain."""
    try:
        body = request.json()
        if not isinstance(body, dict):
            raise CommandFailed("INVALID_REQUEST", f"{what} takes a JSON object")
        return {"ok": True, **(await handler(body) or {})}
    except CommandFailed as error:
        return {"error": {"code": error.code, "message": error.message}}
    except BelvedereError as error:
        return {"error": {"code": type(error).__name__, "message": error.message}}
    except BusError as error:
        return {"error": {"code": type(error).__name__, "message": str(error)}}
    except Exception as error:
        log.exception("command failed", command=what)
        message = f"{what} failed: {type(error).__name__}; the log has the details"
        return {"error": {"code": "INTERNAL", "message": message}}
