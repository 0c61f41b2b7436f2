"""A camera that misbehaves as its script says: a source, a server, and what happens to packets between them.

Its time begins when the first viewer knocks, whenever that is. Randomness comes from the script's seed and the camera's
name alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret

from ._auth import Authenticator
from ._file import FileSource
from ._mount import Mount
from ._server import RtspServer
from ._session import Conduct
from ._source import AccessUnit, Source, StreamDescription
from .faults import CUTS, Fault, FaultScript

log = get_logger(__name__)

RTP_HEADER_BYTES = 12
DELAYED_UNITS_MAX = 2000
"""Pictures that wait to be sent late; beyond it the file is not read on."""


class FaultConduct(Conduct):
    """One camera's script at work."""

    def __init__(
        self,
        script: FaultScript,
        camera: str,
        told: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`told` hears, for people, what begins; `clock` is monotonic, in seconds."""
        self.camera = camera
        self.script = script.of(camera)
        self.started = asyncio.Event()
        self.lost = self.corrupted = 0
        self._told = told
        self._clock = clock
        self._began: float | None = None
        self._random = random.Random(f"{script.seed}/{camera}")
        self._packets = 0

    def start(self) -> None:
        """The first viewer is here."""
        if self._began is None:
            self._began = self._clock()
            self.started.set()

    @property
    def elapsed_s(self) -> float:
        """Since the first viewer; 0 before it."""
        return 0.0 if self._began is None else self._clock() - self._began

    def active(self, kind: str) -> Fault | None:
        """The fault of this kind that is on now."""
        return self.script.active(kind, self.elapsed_s)

    def say(self, fault: Fault) -> None:
        """Tells that a fault begins."""
        if self._told is not None:
            self._told(f"{self.camera}: {fault}")

    def jitter_s(self, fault: Fault) -> float:
        """How much later than others this picture is, by chance."""
        return self._random.uniform(0.0, fault.jitter_s) if fault.jitter_s else 0.0

    def unix_s(self) -> float:
        fault = self.active("clock")
        return time.time() + (fault.by_s if fault else 0.0)

    def packets(self, packets: list[bytes]) -> list[bytes]:
        """What is left of them, in the state in which it arrives."""
        lose, corrupt = self.active("lose"), self.active("corrupt")
        if lose is None and corrupt is None:
            self._packets += len(packets)
            return packets
        sent = []
        for packet in packets:
            self._packets += 1
            if lose is not None and self._hits(lose):
                self.lost += 1
            elif corrupt is not None and self._hits(corrupt):
                self.corrupted += 1
                sent.append(self._changed(packet, corrupt.bytes))
            else:
                sent.append(packet)
        return sent

    def _hits(self, fault: Fault) -> bool:
        return self._packets % fault.every == 0 if fault.every else self._random.random() < fault.share

    def _changed(self, packet: bytes, count: int) -> bytes:
        changed = bytearray(packet)
        for _ in range(count if len(packet) > RTP_HEADER_BYTES else 0):
            changed[self._random.randrange(RTP_HEADER_BYTES, len(packet))] ^= self._random.randrange(1, 256)
        return bytes(changed)


class FaultySource(Source):
    """A file that freezes, comes late, jumps in time, or turns into another file."""

    def __init__(self, file: Path, conduct: FaultConduct, **options: Any) -> None:
        """`options` are FileSource's."""
        self._conduct = conduct
        self._files = {path: FileSource(path, **options) for path in (file, *_others(conduct.script))}
        self._file = file

    async def check(self) -> None:
        """Raises SourceError where any of the files can't be played."""
        for source in self._files.values():
            await source.describe()

    def _playing(self) -> FileSource:
        fault = self._conduct.active("switch")
        return self._files[fault.file if fault and fault.file else self._file]

    async def describe(self) -> StreamDescription:
        return await self._playing().describe()

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        waiting: asyncio.Queue[tuple[float, AccessUnit] | BaseException | None] = asyncio.Queue(DELAYED_UNITS_MAX)
        pump = asyncio.create_task(self._pump(waiting))
        loop = asyncio.get_running_loop()
        try:
            while (item := await waiting.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                due, unit = item
                if (left := due - loop.time()) > 0:
                    await asyncio.sleep(left)
                yield unit
        finally:
            pump.cancel()
            await asyncio.wait([pump])

    async def _pump(self, waiting: asyncio.Queue[tuple[float, AccessUnit] | BaseException | None]) -> None:
        """Reads in the file's own time; pictures leave in the order in which they came, however late each is."""
        conduct, loop, playing, last = self._conduct, asyncio.get_running_loop(), self._playing(), 0.0
        try:
            async with contextlib.aclosing(playing.subscribe()) as units:
                async for unit in units:
                    if self._playing() is not playing:
                        break
                    if conduct.active("freeze") is not None:
                        continue
                    late = conduct.active("delay")
                    last = max(last, loop.time() + (late.by_s + conduct.jitter_s(late) if late else 0.0))
                    jump = conduct.active("clock")
                    pts = unit.pts_90k + round(jump.by_s * 90_000) if jump else unit.pts_90k
                    await waiting.put((last, AccessUnit(unit.data, pts, unit.keyframe)))
        except Exception as error:  # noqa: BLE001 - who reads the queue raises it
            await waiting.put(error)
        else:
            await waiting.put(None)


class FaultyServer(RtspServer):
    """A server of one camera that hangs up, refuses and forgets as its script says."""

    def __init__(self, host: str, port: int, conduct: FaultConduct, users: Mapping[str, Secret[str]] | None) -> None:
        super().__init__(host, port, users=users)
        self._faults = conduct
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await super().start()
        self._follower = asyncio.create_task(self._follow(), name=f"faults of {self._faults.camera}")

    async def stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
        await super().stop()

    def authenticator(self) -> Authenticator | None:
        if self._faults.active("refuse") is not None:
            return Authenticator({}, ("SHA-256", "MD5"))
        return super().authenticator()

    def mount_of(self, path: str) -> Mount | None:
        return None if self._faults.active("missing") is not None else super().mount_of(path)

    def conduct(self) -> Conduct:
        return self._faults

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._faults.start()
        if self._faults.active("drop") is not None:
            writer.transport.abort()
            return
        await super()._serve(reader, writer)

    async def _follow(self) -> None:
        """Tells what begins, and hangs up where that is part of it."""
        faults = self._faults
        await faults.started.wait()
        seen: dict[Fault, float | None] = {}
        while True:
            # A moment later, so that what begins now has begun for everybody who asks.
            now = faults.elapsed_s
            begun = {fault: fault.begun(now) for fault in faults.script.faults}
            fresh = [fault for fault, moment in begun.items() if moment is not None and moment != seen.get(fault)]
            ended = [
                fault
                for fault in begun
                if fault.do == "switch" and seen.get(fault) is not None and not fault.active(now)
            ]
            seen = {
                fault: moment if fault.do != "switch" or fault.active(now) else None for fault, moment in begun.items()
            }
            for fault in fresh:
                if fault.do != "switch" or fault.active(now):
                    faults.say(fault)
            # What is so from the beginning has nobody to cut off.
            if ended or any(fault.do in CUTS and begun[fault] for fault in fresh):
                await self.hang_up()
            after = faults.script.next_change(now)
            if after is None:
                return
            await asyncio.sleep(max(after - faults.elapsed_s, 0.0) + 0.001)


def _others(script: FaultScript) -> list[Path]:
    return [fault.file for fault in script.faults if fault.file is not None]
