"""`python -m edge.agent --data DIR` runs the agent; `python -m edge.agent prepare --data DIR [--bundle ZIP]` enrols first."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from belvedere.chassis import edge, logs
from edge.agent.errors import AgentError
from edge.agent.prepare import prepare
from edge.agent.service import REBOOT_EXIT_CODE, Agent


def main() -> int:
    if sys.argv[1:2] == ["prepare"]:
        return _prepare(sys.argv[2:])
    agents: list[Agent] = []

    async def work(me: edge.EdgeProcess) -> None:
        agents.append(Agent(me))
        await agents[0].run()

    try:
        edge.run("agent", work)
    except SystemExit as ended:
        if agents and agents[0].reboot_wanted:
            return REBOOT_EXIT_CODE
        return int(ended.code or 0)


def _prepare(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge.agent prepare")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--local", action="store_true")
    options = parser.parse_args(arguments)
    logs.configure("agent")
    try:
        asyncio.run(prepare(options.data, options.bundle, local=options.local))
    except AgentError as error:
        print(f"edge: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
