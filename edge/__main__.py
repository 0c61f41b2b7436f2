"""`python -m edge --data DIR [--bundle ZIP]`: a whole appliance where there is no systemd."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from belvedere.chassis.logs import configure
from edge.runner import REBOOT_EXIT_CODE, ApplianceError, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edge", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder; made at first start")
    parser.add_argument("--bundle", type=Path, help="the ZIP from ProvisionDevice; needed at first start only")
    parser.add_argument("--local", action="store_true", help="belong to no cloud side (what `belvedere run` starts)")
    options = parser.parse_args()
    configure("edge")
    try:
        code = asyncio.run(run(options.data, options.bundle, local=options.local))
    except ApplianceError as error:
        print(f"edge: {error}", file=sys.stderr)
        return 2
    if code == REBOOT_EXIT_CODE:
        local = ["--local"] if options.local else []
        os.execv(sys.executable, [sys.executable, "-m", "edge", "--data", str(options.data), *local])
    return code


if __name__ == "__main__":
    sys.exit(main())
