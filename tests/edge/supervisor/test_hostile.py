"""Applications that mean harm, or are broken as if they did. Each runs beside an innocent one, which takes frames, calls a
model and shows its pictures through the same processes: whatever the other does, it loses no frame, and is neither
restarted nor reported.

One appliance (chain.py) serves all tests of this module.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from belvedere.chassis.paths import EdgePaths
from tests.edge.supervisor.chain import INNOCENT, UNPACK_ENTRIES, UNPACK_MB, Site, running_site

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOCKETS = """
import glob, os, socket, time
FRAMES, = glob.glob("/run/belvedere/cameras/*/frames.sock")
CALLS, OUTPUTS = "/run/belvedere/inference/calls.sock", "/run/belvedere/display/outputs.sock"
CONTROL = "/run/belvedere/app/control.sock"
def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(2)
    connection.connect(path)
    return connection
"""


def tar_of(*members: tarfile.TarInfo) -> bytes:
    """A .tar.gz of empty members."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member)
    return raw.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    """A symbolic link."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, target
    return made


def large(name: str, size: int) -> tarfile.TarInfo:
    """A file of `size` bytes, which are to follow."""
    made = tarfile.TarInfo(name)
    made.size = size
    return made


def device(name: str) -> tarfile.TarInfo:
    """The machine's first disk."""
    made = tarfile.TarInfo(name)
    made.type, made.devmajor, made.devminor = tarfile.BLKTYPE, 8, 0
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def site(running: Site) -> AsyncIterator[Site]:
    yield running
    await running.gone()


async def test_a_bomb_of_processes(site: Site) -> None:
    await site.beside(
        """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """
    )
    await site.hostile(lambda app: app["limit_hits"]["pids"])
    await site.innocent_goes_on()


async def test_one_that_fills_the_disk(site: Site) -> None:
    await site.beside(
        """
        import os
        number = 0
        while True:
            number += 1
            try:
                with open(f"/opt/aws/panorama/storage/{number}", "wb") as out:
                    while True:
                        out.write(bytes(1 << 20))
            except OSError:
                pass
        """
    )
    assert "MB of its 32 MB on the disk: raise disk_mb" in await site.fails("APP_LIMIT_REACHED")
    await site.innocent_goes_on()


async def test_one_that_fills_memory(site: Site) -> None:
    await site.beside("kept = []\nwhile True:\n    kept.append(b'x' * (4 << 20))")
    assert "of its 160 MB: raise memory_mb" in await site.fails("APP_OUT_OF_MEMORY")
    await site.innocent_goes_on()


async def test_one_that_ignores_the_stop(site: Site) -> None:
    await site.beside(
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        say(type="hello")
        say(type="stats", frames_taken=1, frames_put=1)
        while True:
            pass
        """
    )
    await site.hostile(lambda app: app["state"] == "running")
    await site.innocent_goes_on()
    await site.gone()


async def test_one_that_comes_and_goes_at_the_camera(site: Site) -> None:
    await site.beside(
        SOCKETS
        + """
import framelink
say(type="hello")
number = 0
while True:
    number += 1
    try:
        with framelink.FrameReader(FRAMES, "hostile") as reader:
            reader.request()
            if number % 2:
                reader.take()
    except framelink.FramelinkError:
        time.sleep(0.001)
    say(type="stats", frames_taken=number, frames_put=number)
"""
    )
    await site.hostile(lambda app: app["frames_taken"] > 20)
    await site.innocent_goes_on()


async def test_one_that_holds_every_frame(site: Site) -> None:
    await site.beside(
        SOCKETS
        + """
import framelink
say(type="hello")
readers = [framelink.FrameReader(FRAMES, f"hostile-{number}") for number in range(8)]
held = []
while True:
    for reader in readers:
        try:
            held.append(reader.get(0.05))
        except framelink.FramelinkError:
            time.sleep(0.01)
    say(type="stats", frames_taken=len(held), frames_put=1)
"""
    )
    await site.hostile(lambda app: app["frames_taken"] >= 4)
    await site.innocent_goes_on()


async def test_one_that_writes_its_log_without_end(site: Site) -> None:
    await site.beside(
        """
        import os, sys, threading
        say(type="hello")
        def files():
            with open("/opt/aws/panorama/logs/endless.log", "w") as out:
                for _ in range(1000):
                    out.write("line\\n" * 2000)
        threading.Thread(target=files).start()
        block = b"the same line again and again\\n" * 4000
        for number in range(2000):
            os.write(1, block)
        print("its last words", flush=True)
        sys.exit("and the reason")
        """
    )
    await site.hostile(lambda app: app["log_lines_dropped"] > 10_000)
    await site.innocent_goes_on()


async def test_its_last_words_come_however_much_it_wrote_before(site: Site) -> None:
    await site.beside(
        """
        import os, sys
        os.write(1, b"the same line again and again\\n" * 300_000)
        print("its last words", flush=True)
        sys.exit("and the reason")
        """
    )
    assert await site.fails("APP_EXITED") == "exit code 1: and the reason"
    await site.appliance.line("its last words")
    await site.appliance.line("lines were dropped here")
    await site.innocent_goes_on()


async def test_one_that_speaks_no_protocol_at_any_of_its_sockets(site: Site) -> None:
    await site.beside(
        SOCKETS
        + """
import itertools, random
say(type="hello")
words = [b"", b"x", b"GET / HTTP/1.1\\r\\n\\r\\n", bytes(65536), b"{", b'{"type": 7}', b"[" * 9000, b'{"type": "stats", "frames_taken": 1e400}',
         b'{"type": "stats", "latency_app_ms": {"p50": "x", "count": []}}']
for number in itertools.count(1):
    for path in (CONTROL, FRAMES, CALLS, OUTPUTS):
        try:
            with connect(path) as connection:
                for _ in range(20):
                    connection.send(random.choice(words) + random.randbytes(random.randrange(64)))
                descriptor = os.memfd_create("mine")
                socket.send_fds(connection, [random.randbytes(64)], [descriptor] * 4)
        except OSError:
            pass
        finally:
            for fd in range(8, 64):
                try:
                    os.close(fd)
                except OSError:
                    pass
    if number % 10 == 0:
        print("rounds", number)
"""
    )
    await site.appliance.line("rounds 20")
    await site.innocent_goes_on()


async def test_one_that_floods_its_control_socket(site: Site) -> None:
    await site.beside("while True:\n    say(type='stats', frames_taken=1, frames_put=1)")
    await site.hostile(lambda app: app["state"] == "running")
    await site.innocent_goes_on()


async def test_one_that_asks_for_what_belongs_to_others(site: Site) -> None:
    paths = EdgePaths(site.appliance.data)
    others = [paths.inference_client_socket(INNOCENT), paths.display_socket(INNOCENT), paths.app_run(INNOCENT)]
    others += [paths.storage(INNOCENT), paths.bus_file, paths.device, Path("/run/belvedere") / INNOCENT]
    await site.beside(
        SOCKETS
        + f"""
found = [path for path in {[str(path) for path in others]!r} if os.path.exists(path)]
for up in ("..", "../..", "../../.."):
    for path in (FRAMES, CALLS, OUTPUTS, CONTROL):
        there = os.path.join(os.path.dirname(path), up)
        found += [name for name in os.listdir(there) if {INNOCENT!r} in name]
print("found", found, "cameras", len(os.listdir("/run/belvedere/cameras")))
import framelink, numpy
try:
    framelink.FrameReader("/run/belvedere/cameras/yard/frames.sock", "hostile", connect_timeout_s=0.2)
    print("another ring was opened")
except framelink.FramelinkError as error:
    print("another ring:", type(error).__name__)
say(type="hello")
say(type="stats", frames_taken=1, frames_put=1)
time.sleep(600)
"""
    )
    assert (await site.appliance.line("found ["))["message"] == "found [] cameras 1"
    await site.appliance.line("another ring: ")
    await site.innocent_goes_on()


@pytest.mark.parametrize("code", ["", "import os; os._exit(7)"], ids=["exits 0", "exits at once"])
async def test_one_that_ends_for_ever(site: Site, code: str) -> None:
    await site.beside(code)
    await site.hostile(lambda app: app["restarts"] >= 2 and app["reason"] and app["reason"]["code"] == "APP_EXITED")
    await site.innocent_goes_on()


HEADERS = b"".join(tarfile.TarInfo(f"f{number}").tobuf() for number in range(10_000))
MANY = gzip.compress(HEADERS) * 1000
"""Ten million entries; members of gzip, one after the other, are one file."""
BOMB = gzip.compress(large("zeros", 8 << 30).tobuf()) + gzip.compress(bytes(64 << 20)) * 128
"""8 GB of nothing."""


@pytest.mark.parametrize(
    ("archive", "refused"),
    [
        (tar_of(tarfile.TarInfo("panorama/../../../etc/cron.d/x")), "a name leads out of it"),
        (tar_of(link("panorama/data", "/etc"), tarfile.TarInfo("panorama/data/passwd")), "used as a folder"),
        (tar_of(device("panorama/disk")), "a device or another special file"),
        (tar_of(tarfile.TarInfo("panorama/" + "x/" * 70 + "y")), "folders lie deeper than"),
        (gzip.compress(os.urandom(1 << 20)), "not a whole .tar.gz file"),
        (MANY, f"more than {UNPACK_ENTRIES} entries"),
        (BOMB, f"more than {UNPACK_MB} MB"),
    ],
    ids=["out of it", "through a link", "a device", "deep", "none", "ten million", "a bomb"],
)
async def test_one_whose_archive_is_an_attack(site: Site, archive: bytes, refused: str) -> None:
    path = site.appliance.data / "assets" / "sha256" / hashlib.sha256(archive).hexdigest()
    path.write_bytes(archive)
    await site.beside("", rootfs=str(path))
    assert refused in await site.fails("ASSET_INVALID")
    if archive in (MANY, BOMB):  # the others are refused in the same place, after less work
        await site.innocent_goes_on()
