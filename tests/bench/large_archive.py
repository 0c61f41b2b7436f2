"""B8's large line: a code archive of LARGE_MB, nothing of which is anywhere yet, goes through everything that an archive goes
through: uploaded by boto3 in parts, registered and cut, fetched by the appliance, put together, running.

What is told is how long each takes, and the most memory that any process of either side ever had: it stays far below the
archive.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from belvedere.appdir import AppFolder
from belvedere.appdir.archive import code_tree, store_copy
from belvedere.appdir.packaging import record_asset
from tests.bench.result import Line
from tests.support.folders import FRAMES_THROUGH, application_folder
from tests.support.whole import WholeSystem

LARGE_MB = int(os.environ.get("BENCH_LARGE_MB", "500"))
MEMBERS = 8
LOOK_EVERY_S = 0.25
PEAK = re.compile(r"VmHWM:\s+([0-9]+) kB")


def large_archive(system: WholeSystem, folder: Path, camera: str) -> list[Line]:
    """`camera`: one that is registered there."""
    app = application_folder(folder / "app", "large", FRAMES_THROUGH, cameras=[camera])
    size = _enlarge(app, folder / "large.tar.gz") >> 20
    cloud_pid, appliance_pid = system.running("cloud").process.pid, system.running("appliance").process.pid
    with _Peaks(cloud_pid) as cloud_before, _Peaks(appliance_pid) as edge_before:
        pass
    with _Peaks(cloud_pid) as cloud, _Peaks(appliance_pid) as edge:
        moments = [time.monotonic()]
        _upload(system, app)
        moments.append(time.monotonic())
        system.account.register_packages(app)
        moments.append(time.monotonic())
        instance_id = system.create(app.graph_path.read_text(), app.name)
        system.wait_running(instance_id)
        moments.append(time.monotonic())
    upload_s, register_s, deploy_s = (after - before for before, after in itertools.pairwise(moments))
    system.panorama.remove_application_instance(ApplicationInstanceId=instance_id)
    system.wait_status(instance_id, "REMOVAL_SUCCEEDED")
    return [
        Line("B8", f"an archive of {size} MB, uploaded in parts", "MB/s", size / upload_s),
        Line("B8", "the same, registered: read, cut and stored", "MB/s", size / register_s),
        Line("B8", "the same, deployed: fetched, put together, running", "MB/s", size / deploy_s),
        _memory("any process of the cloud side", "", cloud, cloud_before),
        _memory("the agent", "edge.agent", edge, edge_before),
        _memory("the supervisor", "edge.supervisor", edge, edge_before),
    ]


def _memory(whose: str, name: str, after: _Peaks, before: _Peaks) -> Line:
    """The limit: what it had had before."""
    return Line(
        "B8", f"most memory of {whose}", "MB", after.of(name), limit=before.of(name), reach="far below the archive"
    )


def _enlarge(app: AppFolder, path: Path) -> int:
    """Puts bytes that nobody can compress beside the application's code; the archive's size."""
    package = app.package(f"{app.name}_code").folder
    with (
        gzip.open(path, "wb", compresslevel=0) as plain,
        tarfile.open(fileobj=plain, mode="w|") as archive,
    ):
        for name, source in code_tree(package / "src"):
            archive.add(source, name, recursive=False)
        for number in range(MEMBERS):
            member = tarfile.TarInfo(f"panorama/large{number}.bin")
            member.size = (LARGE_MB << 20) // MEMBERS
            archive.addfile(member, _Random())  # type: ignore[arg-type]
    stored = store_copy(app.assets, path)
    path.unlink()
    record_asset(package, app.assets, "container", stored, package / "descriptor.json", None)
    return stored.stat().st_size


class _Random:
    def read(self, count: int) -> bytes:
        return os.urandom(count)


def _upload(system: WholeSystem, app: AppFolder) -> None:
    """Whole, to where registration looks for it, as any user of boto3 does."""
    package = app.package(f"{app.name}_code")
    location = system.panorama.create_package(PackageName=package.name)["StorageLocation"]
    for file in package.files(app.assets):
        key = f"{location['BinaryPrefixLocation']}/{file.uri}"
        system.account.s3.upload_file(str(file.path), location["Bucket"], key)


class _Peaks:
    """The most memory that each process below `root_pid` has had since its start, also of those that end."""

    def __init__(self, root_pid: int) -> None:
        self._root = psutil.Process(root_pid)
        self._peaks: dict[int, tuple[str, float]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._thread.join()

    def of(self, name: str) -> float:
        """Of the processes that have `name` in their command line, MB."""
        return max(peak for command, peak in self._peaks.values() if name in command)

    def _look(self) -> None:
        while True:
            last = self._end.wait(LOOK_EVERY_S)
            for process in (self._root, *self._root.children(recursive=True)):
                try:
                    command = " ".join(process.cmdline())
                    found = PEAK.search(Path(f"/proc/{process.pid}/status").read_text())
                except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                    continue  # it has ended
                if found:
                    self._peaks[process.pid] = (command, int(found.group(1)) / 1024)
            if last:
                return
