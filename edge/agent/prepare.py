"""What has to be there before the appliance's bus can start: an identity, the leaf's configuration, the bus file.

Run at every start, before any other process; does only what is missing. The leaf's ports and the key of its local users
stay what they were.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import nkeys

from belvedere import __version__
from belvedere.bus import leaf
from belvedere.bus.server import free_port
from belvedere.chassis.paths import EdgePaths
from edge.agent.device import CA, DeviceConfig, write_private
from edge.agent.enrol import Bundle, enrol, is_enrolled
from edge.agent.errors import NotEnrolled
from edge.agent.local import make_local


async def prepare(data: Path, bundle: Path | None, *, local: bool = False) -> None:
    """Enrols where that is still to do (`local`: makes an identity without a cloud side), and writes what the leaf and
    the processes read. Raises AgentError."""
    paths = EdgePaths(data)
    paths.prepare()
    if local:
        if is_enrolled(paths.device) and not DeviceConfig.load(paths.device).local:
            raise NotEnrolled(f"{data} belongs to a device of a cloud side: choose another folder to run without one")
        if not is_enrolled(paths.device):
            make_local(paths.device)
    elif not is_enrolled(paths.device):
        if bundle is None:
            raise NotEnrolled(f"{data} belongs to no device: start with --bundle and the ZIP from ProvisionDevice")
        await enrol(Bundle.load(bundle), paths.device, serial_number=serial_number(), software_version=__version__)
    _write_bus(paths, DeviceConfig.load(paths.device))


def _write_bus(paths: EdgePaths, config: DeviceConfig) -> None:
    kept = paths.device / "bus.json"
    if not kept.exists():
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode()
        write_private(kept, json.dumps({"port": free_port(), "nkey_seed": seed}).encode())
    local = json.loads(kept.read_text())
    public = nkeys.from_seed(bytearray(local["nkey_seed"].encode())).public_key.decode()
    leaf.write(
        paths.nats,
        device_id=config.device_id,
        port=local["port"],
        users=[public],
        leaf_urls=config.leaf_urls,
        credentials=paths.device / f"device.{config.creds_generation}.creds",
        tls_ca=paths.device / CA,
    )
    write_private(
        paths.bus_file,
        json.dumps({"url": f"nats://127.0.0.1:{local['port']}", "nkey_seed": local["nkey_seed"]}).encode(),
    )


def serial_number() -> str:
    """AWS's form of a serial number, 1 to 20 digits, the same on this machine each time: from its machine id."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
        return str(int(machine, 16) % 10**16)
    except (OSError, ValueError):
        return str(zlib.crc32(os.uname().nodename.encode()))
