"""One gRPC server with every servicer of the process, health and reflection.

    server = GrpcServer(f"unix:{paths.grpc_socket}")
    server.add(service)                     # its servicers
    await server.start()
    await server.serving(True)                 # health: SERVING for each service name and for ""
    await server.stop()

Must not know any service. A unix socket is made with mode 0600.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from belvedere.chassis.rpc import CHANNEL_OPTIONS, Gate, ServerInterceptor
from belvedere.chassis.service import Service

STOP_GRACE_S = 1.0
"""For calls in progress when the server stops; then they are cancelled."""
MAX_CONCURRENT_CALLS = 512
"""More are refused with RESOURCE_EXHAUSTED."""


class ServerError(Exception):
    """The server cannot listen at its address."""


@dataclass(frozen=True)
class Tls:
    """Files of a server, PEM."""

    key: Path
    certificate: Path
    """Followed by those of its issuers."""


class GrpcServer:
    """The process's gRPC server."""

    def __init__(self, address: str, *, gate: Gate | None = None, tls: Tls | None = None) -> None:
        """`address`: `unix:/path` or `host:port` (port 0: a free one, then in `port`).

        `gate`: who may come in; without one every call is the owner's. `tls`: for TCP, the server's key and certificate.
        """
        self.address = address
        self.port = 0
        self._gate, self._tls = gate, tls
        self._server = grpc.aio.server(
            interceptors=[ServerInterceptor(gate)],
            options=CHANNEL_OPTIONS,
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
        )
        self._health = HealthServicer()
        self._names: list[str] = [""]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(self, service: Service) -> None:
        """Adds the servicers of `service`; before `start`."""
        for register, servicer, full_name in service.servicers:
            if self._gate is not None and not self._gate.serves(f"/{full_name}/"):
                continue
            register(servicer, self._server)
            self._names.append(full_name)

    async def start(self) -> None:
        """Listens. Health says NOT_SERVING until `serving(True)`. Raises ServerError where the address is taken."""
        shown = [name for name in self._names if name]
        reflection.enable_server_reflection(
            (*shown, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), self._server
        )
        await self.serving(False)
        path = Path(self.address.removeprefix("unix:")) if self.address.startswith("unix:") else None
        if path is not None and path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            # Left by a process that was killed; whoever is alive holds the data folder's lock.
            path.unlink()
        mask = os.umask(0o177)
        try:
            if self._tls is None:
                self.port = self._server.add_insecure_port(self.address)
            else:
                credentials = grpc.ssl_server_credentials(
                    [(self._tls.key.read_bytes(), self._tls.certificate.read_bytes())]
                )
                self.port = self._server.add_secure_port(self.address, credentials)
            await self._server.start()
        except RuntimeError as error:
            await self._server.stop(None)
            raise ServerError(f"gRPC cannot listen at {self.address}: {error}") from error
        finally:
            os.umask(mask)
        if path is not None:
            path.chmod(0o600)

    async def serving(self, up: bool) -> None:
        """What health says of every service of this process."""
        status = health_pb2.HealthCheckResponse.SERVING if up else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Health turns to NOT_SERVING, calls in progress get STOP_GRACE_S."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_GRACE_S)
