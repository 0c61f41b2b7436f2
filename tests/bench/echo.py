"""The limit of the front door: an aiohttp server that reads a request and answers with fixed bytes, nothing else.

    python -m tests.bench.echo REPLY_FILE        # prints its port

The same low-level server as the front door's. A request's path chooses nothing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web


async def main(reply: bytes) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(body=reply, content_type="application/json")

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes()))
