"""The embedded cloud in a thread of its own, and AWS's clients pointed at its front door.

    with front_door(tmp_path) as door:
        panorama = door.client("panorama")          # today's boto3 with our model, as the administrator
        panorama.list_devices()
        door.call(lambda cloud: some_coroutine(cloud))      # inside the cloud's loop

For tests that are plain functions: boto3 blocks.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore.config import Config

from belvedere import awsmodel
from services.runner import SERVICES
from tests.support.cloud import REGION, RunningCloud, running_cloud

T = TypeVar("T")

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Door:
    """A running front door."""

    cloud: RunningCloud
    loop: asyncio.AbstractEventLoop
    access_key_id: str
    secret_access_key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.cloud.runtime.ports.gateway}"

    @property
    def environment(self) -> dict[str, str]:
        """What AWS's tools, and ours, take for a user's own: the administrator's."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(
        self, service: str, *, token: str | None = None, keys: tuple[str, str] | None = None, **config: Any
    ) -> Any:
        """A boto3 client. `keys`: others than the administrator's; `config`: of botocore's Config."""
        session = botocore.session.Session()
        session.set_config_variable("data_path", str(awsmodel.model_folder()))
        key, secret = keys or (self.access_key_id, self.secret_access_key)
        options: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "read_timeout": 60, **config}
        return boto3.Session(
            botocore_session=session,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            region_name=REGION,
        ).client(service, endpoint_url=self.url, config=Config(**options))

    def call(self, work: Callable[[RunningCloud], Awaitable[T]]) -> T:
        """Runs a coroutine in the cloud's loop, as the administrator."""

        async def run() -> T:
            with self.cloud.caller():
                return await work(self.cloud)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(CALL_TIMEOUT_S)


@contextmanager
def front_door(data: Path, services: Sequence[str] = SERVICES) -> Iterator[Door]:
    """Starts `services` (those whose folder is there); leaving stops them and raises what had failed."""
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def run() -> None:
        stop = asyncio.Event()
        async with running_cloud(data, services) as cloud:
            state.update(loop=asyncio.get_running_loop(), stop=stop, cloud=cloud)
            ready.set()
            await stop.wait()

    with ThreadPoolExecutor(1, "front door") as pool:
        running = pool.submit(asyncio.run, run())
        running.add_done_callback(lambda _: ready.set())
        try:
            if not ready.wait(START_TIMEOUT_S):
                raise TimeoutError(f"the cloud was not up within {START_TIMEOUT_S:g} s")
            if "cloud" not in state:
                running.result()
            admin = json.loads((data / "admin.json").read_text())
            yield Door(state["cloud"], state["loop"], admin["access_key_id"], admin["secret_access_key"])
        finally:
            if "stop" in state and not running.done():
                state["loop"].call_soon_threadsafe(state["stop"].set)
        running.result(STOP_TIMEOUT_S)
