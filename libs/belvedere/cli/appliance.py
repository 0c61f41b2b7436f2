"""`belvedere appliance …`: a (virtual) appliance from one data folder."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from belvedere.chassis.edge import EdgeError, ask
from belvedere.cli.errors import CliError

STATUS_TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    running = commands.add_parser("run", help="run an appliance in the foreground")
    running.add_argument("--data", type=Path, required=True, help="data folder; made at first start")
    running.add_argument("--bundle", type=Path, help="the ZIP from ProvisionDevice; needed at first start only")
    running.set_defaults(run=run)
    asking = commands.add_parser("status", help="what a running appliance is doing")
    asking.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere appliance run`")
    asking.add_argument("--json", action="store_true", help="everything, as JSON")
    asking.set_defaults(run=status)


def run(options: argparse.Namespace) -> int:
    """Becomes the appliance: this process is replaced, so that signals reach it as they are."""
    options.data.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "edge", "--data", str(options.data)]
    if options.bundle is not None:
        command += ["--bundle", str(options.bundle)]
    os.execv(sys.executable, command)


def status(options: argparse.Namespace) -> int:
    try:
        answer = asyncio.run(ask(options.data, "agent", "overview", {}, timeout_s=STATUS_TIMEOUT_S))
    except EdgeError as error:
        raise CliError(f"no appliance answers in {options.data}: {error}") from error
    print(json.dumps(answer, indent=2) if options.json else describe(answer))
    return 0


def describe(answer: dict[str, Any]) -> str:
    """The status as a person reads it."""
    applications, models = answer["names"]["applications"], answer["names"]["models"]
    lines = [
        f"{answer['device_id']}  cloud link {'up' if answer['link_up'] else 'down'}  target {answer['target_version']}"
    ]
    if answer.get("deleted"):
        lines.append("this device was deleted in the cloud: its applications are stopped, its data folder is kept")
    for camera in answer["ingest"].get("cameras", ()):
        lines.append(
            f"camera       {camera['camera_id']}  {camera['state']}  {camera['fps']:.1f} fps  {camera['frames_decoded']} frames"
            + _because(camera.get("reason"))
        )
    for model in answer["inference"].get("models", ()):
        p50 = (model.get("infer_ms") or {}).get("p50")
        speed = f"  {p50:.1f} ms" if p50 is not None else ""
        lines.append(
            f"model        {_named(model['model_id'][:12], *models.get(model['model_id'], ()))}  {model['state']}  "
            f"{model['calls']} calls{speed}" + _because(model.get("reason"))
        )
    for application in answer["supervisor"].get("applications", ()):
        lines.append(
            f"application  {_named(application['instance_id'], applications.get(application['instance_id']))}  "
            f"{application['state']}  {application['frames_taken']} frames taken  "
            f"{application['frames_put']} put  {application['restarts']} restarts" + _because(application.get("reason"))
        )
    for output in answer["display"].get("outputs", ()):
        lines.append(
            f"output       {output['rtsp_url']}  {output['viewers']} viewers  {output['frames_displayed']} frames shown"
        )
    if screen := answer["display"].get("screen"):
        names = " ".join(screen["connectors"])
        lines.append(f"screen       {screen['state']}  {names}".rstrip() + _because(screen.get("reason")))
    if answer.get("metrics_url"):
        lines.append(f"metrics      {answer['metrics_url']}")
    for process in answer["processes"]:
        used = f"{process['name']:<24} {process['cpu_seconds']:8.1f} s cpu  {process['pss_mb']:7.1f} MB"
        owner = process["instance_id"]
        lines.append(f"process      {used}" + (f"  {_named(owner, applications.get(owner))}" if owner else ""))
    return "\n".join(lines)


def _named(identifier: str, *names: str | None) -> str:
    """What it is called, where that is known, and its id: several may have one name."""
    return "  ".join([", ".join(name for name in names if name), identifier]).strip()


def _because(reason: dict[str, Any] | str | None) -> str:
    if not reason:
        return ""
    return f"  {reason if isinstance(reason, str) else reason['message']}"
