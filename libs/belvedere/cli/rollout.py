"""`belvedere rollout …`: an application to a group of devices, in phases, over the owner's socket.

belvedere rollout create apps/counter --data D --tag site=north --phase 1:300 --phase 25%:300 --gate 'FrameRate>=5:60'
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from belvedere.appdir import AppFolder, AppFolderError
from belvedere.chassis.paths import run_dir
from belvedere.cli.cloud import CloudAccess
from belvedere.cli.errors import CliError
from belvedere.cli.owner import Identity, add_data, moment, read, table
from belvedere.v1 import rollouts_pb2 as pb
from belvedere.v1.rollouts_pb2_grpc import RolloutServiceStub

APPLICATION_ROLE = "BelvedereApplication"
NO_ROLE = "none"
WATCH_EVERY_S = 1.0
_GATE = re.compile(r"(?:(average|sum|minimum|maximum) )?([A-Za-z]+) *(>=|<=) *(-?[0-9.]+):([0-9]+)")
_PHASE = re.compile(r"([0-9]+)(%?)(?::([0-9]+))?")
_ENDED = (pb.ROLLOUT_STATUS_SUCCEEDED, pb.ROLLOUT_STATUS_FAILED, pb.ROLLOUT_STATUS_CANCELLED)

Run = Callable[[Identity, argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of `belvedere rollout` to the command line."""
    words = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        own: argparse.ArgumentParser = words.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_data(own)
        own.set_defaults(run=_running(run))
        return own

    made = command("create", create, "deploy a packaged application to the devices with these tags")
    made.add_argument("app_dir", metavar="APP_DIR", type=Path, help="its folder; its packages are registered")
    made.add_argument(
        "--tag", metavar="KEY=VALUE", action="append", required=True, help="devices have it; repeated: all"
    )
    made.add_argument("--name", help="of the application instances; what has it on a device is replaced (the graph's)")
    made.add_argument(
        "--overrides",
        metavar="FILE",
        type=Path,
        help="for every device, with ${device.name} and ${tag.KEY}; - is stdin",
    )
    made.add_argument(
        "--phase", metavar="N|N%[:WAIT]", action="append", default=[],
        help="so many devices, or so many of a hundred, at its end, then so many seconds of rest (all at once)",
    )  # fmt: skip
    made.add_argument(
        "--gate", metavar="[STATISTIC ]METRIC>=|<=N:WINDOW", action="append", default=[],
        help="holds on each device over so many seconds: FrameRate, ResultRate, DroppedFrames, ApplicationErrors, Latency",
    )  # fmt: skip
    made.add_argument("--max-failures", type=int, default=0, help="devices that may fail (%(default)s)")
    made.add_argument("--deliver-timeout", metavar="SECONDS", type=int, default=0, help="of one device (600)")
    made.add_argument("--role", default=APPLICATION_ROLE, help=f"by name or ARN; {NO_ROLE} (%(default)s)")
    made.add_argument("--token", default="", help="the same one: the same rollout")
    made.add_argument("--wait", action="store_true", help="until it has ended; status 1 where it did not succeed")
    command("list", list_rollouts, "rollouts, the newest first")
    for name, run, text in (
        ("show", show, "one rollout, device by device"),
        ("pause", pause, "begin no further device"),
        ("resume", resume, "go on"),
        ("cancel", cancel, "end it: devices go back to what they ran before"),
    ):
        own = command(name, run, text)
        own.add_argument("rollout", metavar="ROLLOUT", help="its id")
        if name == "cancel":
            own.add_argument("--keep", action="store_true", help="devices keep what they have")


def create(service: Identity, options: argparse.Namespace) -> int:
    try:
        app = AppFolder.load(options.app_dir)
        graph, name = app.graph(), options.name or app.name
    except AppFolderError as error:
        raise CliError(str(error)) from error
    role = options.role
    if role == NO_ROLE:
        role = ""
    elif not role.startswith("arn:"):
        role = f"arn:aws:iam::{service.account}:role/{role}"
    request = pb.CreateRolloutRequest(
        name=name,
        device_tags=dict(_tag(text) for text in options.tag),
        manifest_payload=json.dumps(graph),
        manifest_overrides_payload=read(options.overrides) if options.overrides else "",
        runtime_role_arn=role,
        phases=[phase(text) for text in options.phase],
        gates=[gate(text) for text in options.gate],
        max_failures=options.max_failures,
        deliver_timeout_seconds=options.deliver_timeout,
        client_token=options.token,
    )
    rollout_id = service.ask(request).rollout_id
    print(rollout_id, flush=True)
    return _watch(service, rollout_id) if options.wait else 0


def list_rollouts(service: Identity, options: argparse.Namespace) -> int:
    rows: list[Sequence[str]] = []
    token = ""
    while True:
        page = service.ask(pb.ListRolloutsRequest(next_token=token))
        rows += [
            (item.rollout_id, item.name, _status(item), _counts(item), moment(item.created_time))
            for item in page.rollouts
        ]
        token = page.next_token
        if not token:
            break
    table(("ROLLOUT", "APPLICATION", "STATUS", "DEVICES", "CREATED"), rows)
    return 0


def show(service: Identity, options: argparse.Namespace) -> int:
    found = service.ask(pb.DescribeRolloutRequest(rollout_id=options.rollout))
    print(f"{found.rollout.name}: {_status(found.rollout)}, phase {found.rollout.phase + 1} of {found.rollout.phases}")
    if found.rollout.status_description:
        print(f"  {found.rollout.status_description}")
    table(
        ("DEVICE", "PHASE", "STATUS", "INSTANCE", "WHY"),
        [
            (
                device.device_name,
                str(device.phase + 1),
                pb.RolloutDeviceStatus.Name(device.status).removeprefix("ROLLOUT_DEVICE_STATUS_"),
                device.application_instance_id,
                device.description,
            )
            for device in found.devices
        ],
    )
    return 0


def pause(service: Identity, options: argparse.Namespace) -> int:
    service.ask(pb.PauseRolloutRequest(rollout_id=options.rollout))
    return 0


def resume(service: Identity, options: argparse.Namespace) -> int:
    service.ask(pb.ResumeRolloutRequest(rollout_id=options.rollout))
    return 0


def cancel(service: Identity, options: argparse.Namespace) -> int:
    service.ask(pb.CancelRolloutRequest(rollout_id=options.rollout, keep=options.keep))
    return 0


def phase(text: str) -> pb.RolloutPhase:
    """`5`, `25%`, `25%:300`. Raises CliError."""
    found = _PHASE.fullmatch(text)
    if found is None:
        raise CliError(f"--phase {text}: say N or N%, and :SECONDS of rest after it")
    number, percent, wait_s = found.groups()
    wait_s = int(wait_s or 0)
    return (
        pb.RolloutPhase(percent=int(number), wait_seconds=wait_s)
        if percent
        else pb.RolloutPhase(count=int(number), wait_seconds=wait_s)
    )


def gate(text: str) -> pb.RolloutGate:
    """`FrameRate>=5:60`, `sum ApplicationErrors<=0:120`. Raises CliError."""
    found = _GATE.fullmatch(text.strip())
    if found is None:
        raise CliError(f"--gate {text}: say METRIC>=NUMBER:SECONDS or METRIC<=NUMBER:SECONDS")
    statistic, metric, comparison, threshold, window_s = found.groups()
    return pb.RolloutGate(
        metric=metric,
        statistic=pb.RolloutStatistic.Value(f"ROLLOUT_STATISTIC_{(statistic or 'average').upper()}"),
        comparison=pb.ROLLOUT_COMPARISON_AT_LEAST if comparison == ">=" else pb.ROLLOUT_COMPARISON_AT_MOST,
        threshold=float(threshold),
        window_seconds=int(window_s),
    )


def _watch(service: Identity, rollout_id: str) -> int:
    last = ""
    while True:
        found = service.ask(pb.DescribeRolloutRequest(rollout_id=rollout_id)).rollout
        line = (
            f"  {_status(found)} phase {found.phase + 1} of {found.phases}: {_counts(found)} {found.status_description}"
        )
        if line != last:
            print(line.rstrip(), flush=True)
            last = line
        if found.status in _ENDED:
            return 0 if found.status == pb.ROLLOUT_STATUS_SUCCEEDED else 1
        time.sleep(WATCH_EVERY_S)


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CliError(f"--tag {text}: say KEY=VALUE")
    return key, value


def _status(rollout: pb.Rollout) -> str:
    return pb.RolloutStatus.Name(rollout.status).removeprefix("ROLLOUT_STATUS_")


def _counts(rollout: pb.Rollout) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(rollout.devices.items()))


def _running(run: Run) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        with _service(options.data) as service:
            return run(service, options)

    return command


@contextmanager
def _service(data: Path) -> Iterator[Identity]:
    access = CloudAccess.load(data)
    with grpc.insecure_channel(f"unix:{run_dir(data) / 'grpc.sock'}") as channel:
        yield Identity(data, channel, access, RolloutServiceStub(channel))
