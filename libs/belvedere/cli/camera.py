"""`belvedere camera serve`: a simulated camera that plays a file in a loop."""

from __future__ import annotations

import argparse
import asyncio
import secrets

from belvedere.chassis.secret import Secret
from belvedere.cli.errors import CliError
from belvedere.rtsp import serve_camera


def serve(options: argparse.Namespace) -> int:
    if not options.file.exists():
        raise CliError(f"no video at {options.file}")
    if options.password_file is not None:
        password = options.password_file.read_text().strip()
    else:
        password = secrets.token_urlsafe(9)
        print(f"user {options.username}, password {password}", flush=True)
    asyncio.run(
        serve_camera(options.file, options.host, options.port, options.path, options.username, Secret(password))
    )
    return 0
