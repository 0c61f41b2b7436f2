"""The RTSP server: listens, keeps the paths, bounds the number of clients. Sessions and requests are the
connection's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret

from ._auth import NONCE_LIFETIME_S, Authenticator, Scheme
from ._connection import Connection
from ._messages import MAX_LINE, format_response
from ._mount import Mount, PathStats
from ._session import SESSION_TIMEOUT_S, Conduct
from ._source import Source
from .errors import ListenFailed, PathTaken

log = get_logger(__name__)

MAX_CONNECTIONS = 128
SEND_BUFFER_BYTES = 512 * 1024
"""Of a connection, in the kernel: a slow viewer's pictures wait in its queue, where they can be dropped, not here."""
CONNECTION_STOP_TIMEOUT_S = 2.0


class RtspServer:
    """Serves sources under paths.

        server = RtspServer("127.0.0.1", 0, users={"viewer": Secret("…")})
        server.add("front", FileSource("clip.mp4"))
        await server.start()
        print(server.url("front"))

    `users=None` lets everybody look. `schemes` are offered in this order; `Basic` sends the password readably and is
    therefore not offered unless asked for. Port 0 takes a free one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        users: Mapping[str, Secret[str]] | None = None,
        schemes: Sequence[Scheme] = ("SHA-256", "MD5"),
        session_timeout_s: float = SESSION_TIMEOUT_S,
        nonce_lifetime_s: float = NONCE_LIFETIME_S,
    ) -> None:
        self._host = host
        self._port = port
        self._users = users
        self._schemes = tuple(schemes)
        self._session_timeout = session_timeout_s
        self._nonce_lifetime = nonce_lifetime_s
        self._mounts: dict[str, Mount] = {}
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._listener: asyncio.Server | None = None
        self.refused = 0

    async def __aenter__(self) -> RtspServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port listened on; before `start`, the one asked for."""
        return self._port

    def url(self, path: str, host: str | None = None) -> str:
        """The address of a path, without user or password; `host` where viewers know the machine by another name."""
        name = host or self._host
        return f"rtsp://{f'[{name}]' if ':' in name else name}:{self._port}/{quote(path.strip('/'))}"

    def add(self, path: str, source: Source) -> None:
        """Serves `source` under `path`. Raises PathTaken."""
        path = path.strip("/")
        if path in self._mounts:
            raise PathTaken(path)
        self._mounts[path] = Mount(path, source)

    async def remove(self, path: str) -> None:
        """Ends the path's viewers and stops its source; an unknown path is none already."""
        mount = self._mounts.pop(path.strip("/"), None)
        if mount is not None:
            await self._end([task for connection, task in self._connections.items() if connection.mount is mount])
            await mount.close()

    def set_users(self, users: Mapping[str, Secret[str]] | None) -> None:
        """New passwords, for connections from now on."""
        self._users = users

    def stats(self, path: str) -> PathStats:
        """Counters of a path; KeyError when there is none."""
        return self._mounts[path.strip("/")].stats()

    async def start(self) -> None:
        """Listens. Raises ListenFailed."""
        try:
            self._listener = await asyncio.start_server(
                self._serve, self._host, self._port, limit=MAX_LINE, reuse_address=True
            )
        except OSError as error:
            raise ListenFailed(self._host, self._port, error.strerror or str(error)) from error
        self._port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends every session, then every source, then the listening."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._end(list(self._connections.values()))
        await asyncio.gather(*(mount.close() for mount in self._mounts.values()))

    def mount_of(self, path: str) -> Mount | None:
        return self._mounts.get(path.strip("/"))

    def authenticator(self) -> Authenticator | None:
        if self._users is None:
            return None
        return Authenticator(self._users, self._schemes, nonce_lifetime_s=self._nonce_lifetime)

    def conduct(self) -> Conduct | None:
        """How it departs from what is right; None: it doesn't."""
        return None

    async def hang_up(self) -> None:
        """Ends every connection; new ones are taken as before."""
        await self._end(list(self._connections.values()))

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=CONNECTION_STOP_TIMEOUT_S)
            if pending:
                log.error("rtsp connections did not end in time", count=len(pending))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection: Connection | None = None
        try:
            if len(self._connections) >= MAX_CONNECTIONS:
                self.refused += 1
                writer.write(format_response(503, None))
                return
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, reader, writer, self._session_timeout)
            self._connections[connection] = task
            await connection.serve()
        except asyncio.CancelledError:
            # Only `_end` cancels, and it waits for this task: asyncio would log the cancellation as an error otherwise.
            writer.transport.abort()
        finally:
            if connection is not None:
                self._connections.pop(connection, None)
            writer.close()
