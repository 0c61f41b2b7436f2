"""The appliance's own nats-server: its configuration, and how new credentials get into a running one.

    leaf.write(paths.nats, device_id=…, port=…, users=[public nkey], leaf_urls=…, credentials=…, tls_ca=…)
    await leaf.use_credentials(paths.nats, new_creds_file)

It listens on loopback for the edge processes, keeps their streams on disk, and connects out to the hub. The server reads a
credentials file only when it makes a link: a renewed lease is a new file under a new name, and a reload.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from belvedere.bus.errors import ServerFailed
from belvedere.bus.keyring import write_secret
from belvedere.bus.server import check

CONFIG = "leaf.conf"
PID = "leaf.pid"
_VALUES = "leaf.json"

MAX_MEMORY_BYTES = 32 * 1024**2
MAX_FILE_BYTES = 1024**3
MAX_PAYLOAD_BYTES = 1024 * 1024
# After an outage a hub gets all its appliances at once: the defaults of 1 and 5 s make each of them start over.
RECONNECT_S = 3
LINK_TIMEOUT_S = 20


def render(
    folder: Path,
    *,
    device_id: str,
    port: int,
    users: Sequence[str],
    leaf_urls: Sequence[str],
    credentials: Path,
    tls_ca: Path,
) -> str:
    """The text of leaf.conf. Pure. `users`: public nkeys (`U…`) of the appliance's processes; no `leaf_urls`: no link."""
    folder = folder.absolute()
    members = ", ".join(f"{{ nkey: {user} }}" for user in users)
    return f"""# Written by belvedere.bus.leaf: changes here are lost.
server_name: {device_id}
listen: "127.0.0.1:{port}"
pid_file: {_path(folder / PID)}
max_payload: {MAX_PAYLOAD_BYTES}
jetstream {{
  store_dir: {_path(folder / "jetstream")}, domain: {device_id}
  max_mem: {MAX_MEMORY_BYTES}, max_file: {MAX_FILE_BYTES}
}}
accounts {{
  DEV {{ jetstream: enabled, users: [ {members} ] }}
  SYS {{ users: [] }}
}}
system_account: SYS
{_link(leaf_urls, credentials, tls_ca)}"""


def _link(leaf_urls: Sequence[str], credentials: Path, tls_ca: Path) -> str:
    """The link to the hub; nothing for an appliance that belongs to none."""
    if not leaf_urls:
        return ""
    return f"""leafnodes {{
  reconnect: "{RECONNECT_S}s"
  remotes: [ {{
    urls: {json.dumps(list(leaf_urls))}
    account: DEV
    credentials: {_path(credentials)}
    # What the appliance's processes say to each other is theirs: it does not leave, and nothing like it comes in.
    deny_exports: ["edge.>"], deny_imports: ["edge.>"]
    first_info_timeout: "{LINK_TIMEOUT_S}s"
    tls {{ ca_file: {_path(tls_ca)}, timeout: {LINK_TIMEOUT_S} }}
  }} ]
}}
"""


def _path(value: Path) -> str:
    return json.dumps(str(value.absolute()))


def write(
    folder: Path,
    *,
    device_id: str,
    port: int,
    users: Sequence[str],
    leaf_urls: Sequence[str],
    credentials: Path,
    tls_ca: Path,
) -> Path:
    """Writes leaf.conf into `folder` and returns its path. Does not touch a running server."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "device_id": device_id,
        "port": port,
        "users": list(users),
        "leaf_urls": list(leaf_urls),
        "credentials": str(credentials.absolute()),
        "tls_ca": str(tls_ca.absolute()),
    }
    text = render(
        folder, device_id=device_id, port=port, users=users, leaf_urls=leaf_urls, credentials=credentials, tls_ca=tls_ca
    )
    write_secret(folder / _VALUES, json.dumps(values, indent=1).encode())
    write_secret(folder / CONFIG, text.encode())
    return folder / CONFIG


async def use_credentials(folder: Path, credentials: Path) -> None:
    """Makes the running leaf link with another credentials file; local clients stay connected.

    Raises ServerFailed, with the old configuration still in place, if the server would not take the new one or is not
    running.
    """
    _check_credentials(credentials)
    values = json.loads((folder / _VALUES).read_text())
    values["credentials"] = str(credentials.absolute())
    text = render(
        folder,
        device_id=values["device_id"],
        port=values["port"],
        users=values["users"],
        leaf_urls=values["leaf_urls"],
        credentials=credentials,
        tls_ca=Path(values["tls_ca"]),
    )
    candidate = folder / "leaf.conf.candidate"
    write_secret(candidate, text.encode())
    try:
        await check(candidate)
        pid = _pid(folder)
        write_secret(folder / _VALUES, json.dumps(values, indent=1).encode())
        candidate.replace(folder / CONFIG)
    finally:
        candidate.unlink(missing_ok=True)
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError as error:
        raise ServerFailed("the leaf is not running; it takes the new credentials when it starts") from error


def _check_credentials(path: Path) -> None:
    """nats-server's own check does not open the file, and a link that cannot read it is gone until the next reload."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ServerFailed(f"the credentials file cannot be read: {error}") from error
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ServerFailed(f"{path} is no credentials file")


def _pid(folder: Path) -> int:
    try:
        return int((folder / PID).read_text())
    except (OSError, ValueError) as error:
        raise ServerFailed(f"there is no running leaf in {folder}") from error
