"""What an application is put into: what all of them share, what of the appliance is bound into its sandbox and where, and
the servers behind its two ways out. Must not know its life.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from belvedere.chassis.paths import EdgePaths, short_name
from belvedere.chassis.secret import Secret
from edge.supervisor import environment
from edge.supervisor.ports import PortBoard
from edge.supervisor.relay import Ask, CredentialsEndpoint, GatewayRelay, Served
from edge.supervisor.rootfs import RootfsStore
from edge.supervisor.sandbox import Bind, Running, Sandbox, SandboxSpec
from edge.supervisor.settings import Settings
from edge.supervisor.spec import SOCKET_ROOT, AppSpec
from edge.supervisor.storage import StorageStore

LOGS_TARGET = "/opt/aws/panorama/logs"
STORAGE_TARGET = "/opt/aws/panorama/storage"
CREDENTIALS_CONNECTIONS = 8


@dataclass(frozen=True)
class Surroundings:
    """What every application of this appliance shares."""

    paths: EdgePaths
    settings: Settings
    sandbox: Sandbox
    rootfs: RootfsStore
    storage: StorageStore
    sdk: Path
    """Folder with framelink and panoramasdk."""
    search_path: Callable[[Path], str]
    """PATH for an unpacked archive."""
    gateway_url: Callable[[], str]
    send_log: Callable[[AppSpec, str, str], None]
    """(application, stream, message)"""
    credentials: Callable[[str], Ask]
    """By instance id: how to ask for its role's credentials."""
    ports: PortBoard = field(default_factory=PortBoard)


def socket_folders(paths: EdgePaths, spec: AppSpec) -> dict[str, Path]:
    """By their place in the sandbox, the folders in which others serve the application: models, display, cameras."""
    return {
        f"{SOCKET_ROOT}/inference": paths.inference_client_socket(spec.instance_id).parent,
        f"{SOCKET_ROOT}/display": paths.display_socket(spec.instance_id).parent,
        **{f"{SOCKET_ROOT}/cameras/{short_name(name)}": paths.camera_socket(name).parent for name in spec.camera_ids},
    }


def sandbox_spec(
    around: Surroundings, spec: AppSpec, rootfs: Path, storage: Path, token: Secret[str] | None
) -> SandboxSpec:
    """The sandbox of an application; makes the folders that are bound into it. `token` opens its credentials endpoint;
    None: it has no role."""
    paths, run = around.paths, around.paths.app_run(spec.instance_id)
    folders = {f"{SOCKET_ROOT}/app": run, **socket_folders(paths, spec)}
    own = {LOGS_TARGET: paths.app_logs(spec.instance_id), STORAGE_TARGET: storage}
    for source in (*folders.values(), *own.values()):
        source.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SandboxSpec(
        name=spec.instance_id,
        rootfs=rootfs,
        argv=environment.command_line(spec),
        environment=environment.environment(spec, path=around.search_path(rootfs), token=token),
        binds=(
            Bind(around.sdk, environment.SDK_TARGET),
            Bind(run / "app.json", f"{SOCKET_ROOT}/app.json"),
            *(Bind(source, target) for target, source in folders.items()),
            *(Bind(source, target, writable=True) for target, source in own.items()),
        ),
        limits=spec.limits,
        ports=(environment.GATEWAY_PORT, *((environment.CREDENTIALS_PORT,) if token else ())),
    )


def ways_out(
    around: Surroundings, spec: AppSpec, running: Running, token: Secret[str] | None
) -> list[tuple[Served, Any]]:
    """(server, the listening socket in the sandbox that it is to serve): the gateway, and with a role the credentials."""
    name = spec.instance_id
    servers: dict[int, Served] = {
        environment.GATEWAY_PORT: GatewayRelay(
            name, around.gateway_url, around.paths.device / "ca.pem", around.settings.relay_connections
        )
    }
    if token is not None:
        servers[environment.CREDENTIALS_PORT] = CredentialsEndpoint(
            name, token, around.credentials(name), CREDENTIALS_CONNECTIONS
        )
    return [(servers[port], listener) for port, listener in running.listeners.items()]
