"""Connections of the front door: requests that have come in whole are answered from where their bytes arrive.

An answer that is ready goes out in the same call, without a task or a turn of the loop; others are worked on in a task, one at a
time and in order. Everything that is not a plain, whole request (`head.read`), or that a service reads or writes piece by piece,
hands the connection over to aiohttp, from that request on and for good: uploads, chunked bodies, `Expect`, broken HTTP. Measured: a
request through aiohttp takes 60 µs of cold code more.

Knows bytes and their order, no AWS.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from services.gateway import head
from services.gateway.awake import Awake
from services.gateway.sigv4 import HttpRequest

SWEEPS = 5
"""Idle connections are looked for so many times within the time that they may be idle."""
IN_A_ROW = 16
"""Requests of one connection that are answered before others have their turn: a client may send hundreds in one go."""
Work = Coroutine[Any, Any, bytes]


class Answerer(Protocol):
    """What requests are for."""

    def take(self, request: HttpRequest, body: bytes, source_address: str) -> bytes | Work | None:
        """The answer's bytes; or the work that gives them; or None for a request that has to be read by aiohttp."""
        ...


class Connections:
    """All connections of one port, until they are handed over."""

    def __init__(
        self, answerer: Answerer, others: Callable[[], asyncio.Protocol], idle_timeout_s: float, awake: Awake
    ) -> None:
        self.answerer, self.others, self.awake = answerer, others, awake
        self._every_s = idle_timeout_s / SWEEPS
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self.stopping = False

    def __call__(self) -> Connection:
        return Connection(self)

    def __len__(self) -> int:
        """How many are open and have not been handed over."""
        return len(self._open)

    def start(self) -> None:
        """Looks for idle connections from now on."""
        self._sweep = asyncio.get_running_loop().call_later(self._every_s, self._look)

    def made(self, connection: Connection) -> None:
        self._open.add(connection)

    def gone(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _look(self) -> None:
        for connection in tuple(self._open):
            connection.looked_at()
        self.start()

    async def stop(self, timeout_s: float) -> None:
        """Closes what is idle, and waits `timeout_s` for what is being worked on."""
        self.stopping = True
        self.awake.stop()
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = [task for connection in tuple(self._open) if (task := connection.stop()) is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class Connection(asyncio.Protocol):
    """See the module."""

    __slots__ = ("_all", "_full", "_held", "_looks", "_source", "_task", "_transport")

    def __init__(self, connections: Connections) -> None:
        self._all = connections
        self._transport: asyncio.Transport | None = None
        self._source = ""
        self._task: asyncio.Task[None] | None = None
        self._held = b""
        """What came while something before it was under way."""
        self._full = False
        """The client takes no more of its answers for the moment."""
        self._looks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._source = str(peer[0]) if peer else ""
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._all.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # A request that is under way is finished: what it does is not undone half-way.
        self._transport, self._held = None, b""
        self._all.gone(self)

    def data_received(self, data: bytes) -> None:
        self._looks = 0
        if self._transport is not None:
            self._all.awake.asked(self._transport)
        if self._task is None and not self._full and not self._held:
            self._take(data)
        else:
            self._hold(self._held + data)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full, self._looks = False, 0
        self._go_on()

    def looked_at(self) -> None:
        """Ends the connection after SWEEPS looks without a request, or with a client that takes nothing of its answer."""
        self._looks += 1
        if self._looks > SWEEPS and self._task is None and self._transport is not None:
            self._transport.abort() if self._full else self._transport.close()

    def stop(self) -> asyncio.Task[None] | None:
        """What is under way; without it the connection is closed."""
        if self._task is None and self._transport is not None:
            self._transport.close()
        return self._task

    def _take(self, data: bytes) -> None:
        transport, answerer, taken = self._transport, self._all.answerer, 0
        while data and transport is not None and not transport.is_closing():
            found = head.read(data)
            answer = answerer.take(found[0], found[1], self._source) if found is not None else None
            if answer is None:
                self._hand_over(data)
                return
            assert found is not None
            end = found[2]
            data = data[end:] if end < len(data) else b""
            if isinstance(answer, bytes):
                transport.write(answer)
                self._all.awake.answered()
                taken += 1
                if not self._full:
                    if taken < IN_A_ROW:
                        continue
                    asyncio.get_running_loop().call_soon(self._go_on)
            else:
                self._task = asyncio.get_running_loop().create_task(self._work(answer))
            if data:
                self._hold(data)
            return

    async def _work(self, work: Work) -> None:
        try:
            answer = await work
            if self._transport is not None:
                self._transport.write(answer)
                self._all.awake.answered()
        except BaseException:
            # Cancelled by the stop; an answerer has an answer for everything else.
            if self._transport is not None:
                self._transport.abort()
            raise
        finally:
            self._task, self._looks = None, 0
        if self._all.stopping and self._transport is not None:
            self._transport.close()
        self._go_on()

    def _hold(self, data: bytes) -> None:
        # One request at a time: a client that sends on is not listened to before it has its answer.
        self._held = data
        if self._transport is not None:
            self._transport.pause_reading()

    def _go_on(self) -> None:
        transport = self._transport
        if not self._held or self._task is not None or self._full or transport is None or transport.is_closing():
            return
        data, self._held = self._held, b""
        transport.resume_reading()
        self._take(data)

    def _hand_over(self, data: bytes) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        self._all.gone(self)
        other = self._all.others()
        transport.set_protocol(other)
        other.connection_made(transport)
        other.data_received(data)
