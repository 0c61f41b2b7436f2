"""Where things lie in a data folder (docs/architecture.md, section 1).

    paths = CloudPaths(data); paths.prepare()
    paths.grpc_socket                                   # DATA/run/grpc.sock
    EdgePaths(data).camera_socket(camera_id)            # DATA/run/cameras/<camera_id>/frames.sock

Must not know what the files hold. Folders with secrets and sockets are 0700. A unix socket's path has at most 107
bytes, a data folder's path may be longer: then `run` is a link to a short folder, the same one for the same data folder
whoever asks.
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

SOCKET_PATH_MAX = 107
"""`sockaddr_un.sun_path` has 108 bytes, the last is NUL."""
NAME_MAX = 48
"""Longest folder name below run/: "applicationInstance-" and 26 characters, with a little room."""
BELOW_RUN_MAX = len("/display/") + NAME_MAX + len("/outputs.sock")
"""Longest path that this module makes below run/."""


class UnsafePath(Exception):
    """A folder for sockets exists already and belongs to somebody else, or others can enter it."""


def run_dir(data: Path) -> Path:
    """The folder for sockets of the data folder, made if absent (0700); short enough for every socket below it.

    The same for every process that names the same data folder. Raises UnsafePath where somebody else made it first.
    """
    data = data.absolute()
    run = data / "run"
    if run.is_symlink():
        target = run.readlink()
        _private(target)
        return target
    if run.is_dir() or len(os.fsencode(run)) + BELOW_RUN_MAX <= SOCKET_PATH_MAX:
        data.mkdir(parents=True, exist_ok=True)
        _private(run)
        return run
    key = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]
    target = Path(tempfile.gettempdir()) / f"belvedere-{os.geteuid()}-{key}"
    if len(os.fsencode(target)) + BELOW_RUN_MAX > SOCKET_PATH_MAX:
        target = Path("/tmp") / target.name  # TMPDIR itself is too long
    _private(target)
    data.mkdir(parents=True, exist_ok=True)
    try:
        run.symlink_to(target)
    except FileExistsError:
        # Another process of this data folder was quicker; it made the same link.
        if run.readlink() != target:
            raise
    return target


def remove_run_dir(data: Path) -> None:
    """Removes the short folder and its link, if run/ is one; its sockets must be closed. Called when the last process
    ends."""
    run = data.absolute() / "run"
    if run.is_symlink():
        target = run.readlink()
        for folder, _, files in os.walk(target, topdown=False):
            for name in files:
                (Path(folder) / name).unlink(missing_ok=True)
            Path(folder).rmdir()
        run.unlink(missing_ok=True)


def short_name(name: str) -> str:
    """`name` as a folder below run/: itself up to NAME_MAX bytes, else its front and a hash, always the same."""
    if len(name.encode()) <= NAME_MAX:
        return name
    return f"{name[:24]}-{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UnsafePath(f"{folder} is not a folder of this user: remove it or choose another data folder.")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


class _Paths:
    def __init__(self, data: Path) -> None:
        self.data = Path(data).absolute()

    @property
    def run(self) -> Path:
        """The folder for sockets, made if absent."""
        return run_dir(self.data)

    @property
    def nats(self) -> Path:
        """Configuration and store of this side's nats-server."""
        return self.data / "nats"

    def _make(self, *folders: Path, private: bool = False) -> None:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            if private:
                _private(folder)


class CloudPaths(_Paths):
    """The cloud side's data folder. Keys and blobs are all processes', sockets and the lock each one's own."""

    def __init__(self, data: Path, replica: str = "") -> None:
        """`replica`: the name of a further process of the services, which does not run the hub."""
        super().__init__(data)
        self.own = self.data / "replicas" / replica if replica else self.data
        """What is this process's own."""

    @property
    def run(self) -> Path:
        """The folder for sockets, made if absent."""
        return run_dir(self.own)

    @property
    def secrets(self) -> Path:
        """Keys, TLS, operator seeds (0700)."""
        return self.data / "secrets"

    @property
    def db(self) -> Path:
        """One SQLite file a service."""
        return self.data / "db"

    @property
    def blobs(self) -> Path:
        """The blob store's root, in the embedded default."""
        return self.data / "blobs"

    @property
    def logs(self) -> Path:
        """Output of child processes (nats-server)."""
        return self.data / "logs"

    @property
    def ports_file(self) -> Path:
        """The ports chosen at first start."""
        return self.data / "ports.json"

    @property
    def host_file(self) -> Path:
        """The machine's name as it stands in URLs, as at the last start."""
        return self.data / "host"

    @property
    def admin_file(self) -> Path:
        """The administrator's access key, made at first start (0600)."""
        return self.data / "admin.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one process that uses this data folder, or is this replica."""
        return self.own / "lock"

    @property
    def grpc_socket(self) -> Path:
        """Where the embedded cloud's gRPC server listens."""
        return self.run / "grpc.sock"

    def prepare(self) -> None:
        """Makes the folders."""
        self._make(self.data)
        # All of it is private: databases and streams hold what people wrote in logs, blobs hold their models.
        self._make(self.secrets, self.nats, self.db, self.blobs, self.logs, private=True)
        if self.own != self.data:
            self._make(self.own, private=True)
        run_dir(self.own)


class EdgePaths(_Paths):
    """An appliance's data folder."""

    @property
    def device(self) -> Path:
        """Configuration and keys of the device (0700)."""
        return self.data / "device"

    @property
    def assets(self) -> Path:
        """Verified files, `sha256/<hex>` below it."""
        return self.data / "assets"

    @property
    def rootfs(self) -> Path:
        """Unpacked archives, `<hex>/` below it."""
        return self.data / "rootfs"

    @property
    def logs(self) -> Path:
        """`<process>.log`."""
        return self.data / "logs"

    @property
    def state_file(self) -> Path:
        """The last target and what is running."""
        return self.data / "state.json"

    @property
    def bus_file(self) -> Path:
        """Address and seed of the local bus: {"url", "nkey_seed"} (0600)."""
        return self.run / "bus.json"

    @property
    def config_file(self) -> Path:
        """What enrolment gave: {"device_id", "device_name", …}."""
        return self.device / "config.json"

    def storage(self, instance_id: str) -> Path:
        """An application's own storage."""
        return self.data / "storage" / instance_id

    def app_logs(self, instance_id: str) -> Path:
        """An application's log folder."""
        return self.data / "applogs" / instance_id

    def camera_socket(self, camera_id: str) -> Path:
        """framelink of a camera's frames."""
        return self.run / "cameras" / short_name(camera_id) / "frames.sock"

    @property
    def inference_socket(self) -> Path:
        """framelink calls to the models."""
        return self.run / "inference" / "calls.sock"

    def inference_client_socket(self, instance_id: str) -> Path:
        """The same for one application, a socket each: who calls is known by it."""
        return self.run / "inference" / short_name(instance_id) / "calls.sock"

    def display_socket(self, instance_id: str) -> Path:
        """framelink outputs of one application to the display: a socket each, so that none can show as another."""
        return self.run / "display" / short_name(instance_id) / "outputs.sock"

    def app_run(self, instance_id: str) -> Path:
        """The folder of an application's control.sock and relay.sock."""
        return self.run / "apps" / short_name(instance_id)

    def prepare(self) -> None:
        """Makes the folders."""
        self._make(
            self.data,
            self.nats,
            self.assets / "sha256",
            self.rootfs,
            self.logs,
            self.data / "storage",
            self.data / "applogs",
        )
        self._make(self.device, private=True)
        run_dir(self.data)
