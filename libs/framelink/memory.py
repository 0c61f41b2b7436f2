"""Sealed shared memory: made, sealed and checked here, and nowhere else.

The writer allocates every page, maps the memory, then seals it (SHRINK, GROW, FUTURE_WRITE, SEAL). Its own mapping
stays writable; whoever gets the descriptor can map it for reading and can do nothing else, not even change its size
or punch a hole into it. A receiver verifies exactly that before it maps, so that no later act of the other side can
end in a SIGBUS here.

Must not know: what the bytes mean. Python 3.7 has neither `os.memfd_create` nor the seal constants, hence the numbers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform

from framelink.errors import NoMemory, NotSealed

MFD_CLOEXEC = 0x1
MFD_ALLOW_SEALING = 0x2

F_ADD_SEALS = 1033
F_GET_SEALS = 1034
F_SEAL_SEAL = 0x01
F_SEAL_SHRINK = 0x02
F_SEAL_GROW = 0x04
F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1

SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE

MAX_RING_BYTES = 4 << 30
"""No ring is larger: 8 slots of 4K with room to spare are 0.3 GB."""

MEMORY_MARGIN_BYTES = 64 << 20
"""What must stay available after an allocation. The kernel's OOM killer, unlike us, does not say why."""

_SYSCALL_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279, "armv7l": 385, "armv8l": 385}


def memfd_create(name: str) -> int:
    """A new anonymous file that can be sealed; close-on-exec."""
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "memfd_create"):
        descriptor = libc.memfd_create(name.encode(), flags)
    else:  # glibc before 2.27
        number = _SYSCALL_MEMFD_CREATE.get(platform.machine())
        if number is None:
            raise OSError(
                errno.ENOSYS, "this Python and this C library know no memfd_create on %s" % platform.machine()
            )
        descriptor = libc.syscall(number, name.encode(), flags)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(descriptor)


def available_bytes() -> int | None:
    """Memory that can still be had here: the machine's, or the tightest control group's. None where nothing tells."""
    found = [amount for amount in (_machine_available(), _cgroup_available()) if amount is not None]
    return min(found) if found else None


def create(name: str, size: int) -> tuple[int, mmap.mmap]:
    """Allocate, map and seal `size` bytes. Returns (descriptor to hand out, the one writable mapping)."""
    if not 0 < size <= MAX_RING_BYTES:
        raise NoMemory("a ring of %d bytes is outside 1..%d: use fewer or smaller slots" % (size, MAX_RING_BYTES))
    available = available_bytes()
    if available is not None and size > available - MEMORY_MARGIN_BYTES:
        raise NoMemory(
            "%s needs %d MiB of shared memory, %d MiB are available: use fewer slots, smaller frames or more memory"
            % (name, size >> 20, max(available, 0) >> 20)
        )
    descriptor = memfd_create(name)
    try:
        os.ftruncate(descriptor, size)
        # Every page now: a page that is missing later would be a SIGBUS in whoever touches it first.
        os.posix_fallocate(descriptor, 0, size)
        mapping = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        fcntl.fcntl(descriptor, F_ADD_SEALS, SEALS)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise NoMemory(
                "%s: %d MiB of shared memory refused: %s" % (name, size >> 20, os.strerror(error.errno))
            ) from error
        if error.errno == errno.EINVAL:
            raise NotSealed(
                "this kernel cannot seal shared memory against writing: Linux 5.1 or newer is needed"
            ) from error
        raise
    return descriptor, mapping


def open_sealed(descriptor: int, size: int) -> mmap.mmap:
    """Map, for reading, memory that another process made. The descriptor stays the caller's to close.

    Raises NotSealed unless it is sealed as `create` does, is exactly `size` bytes long and has all its pages.
    """
    if not 0 < size <= MAX_RING_BYTES:
        raise NotSealed("a ring of %d bytes was announced; the limit is %d" % (size, MAX_RING_BYTES))
    try:
        seals = fcntl.fcntl(descriptor, F_GET_SEALS)
    except OSError as error:
        raise NotSealed("the descriptor received is no sealable memory: %s" % error) from error
    if seals & SEALS != SEALS:
        raise NotSealed("the memory received has the seals %#x, wanted are %#x" % (seals, SEALS))
    state = os.fstat(descriptor)
    if state.st_size != size:
        raise NotSealed("the memory received is %d bytes long, announced were %d" % (state.st_size, size))
    # Holes would be filled at our expense, and where that fails by a SIGBUS. The seals keep new ones from being made.
    if state.st_blocks * 512 < size:
        raise NotSealed("the memory received has holes: %d of %d bytes are there" % (state.st_blocks * 512, size))
    try:
        return mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise NotSealed("the memory received cannot be mapped: %s" % error) from error


def _machine_available() -> int | None:
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None


def _cgroup_available() -> int | None:
    """The least of what the control groups around this process (version 2) still grant; page cache counts as free."""
    try:
        with open("/proc/self/cgroup") as lines:
            group = next((line.strip()[3:] for line in lines if line.startswith("0::")), None)
    except OSError:
        return None
    if group is None:
        return None
    folder = "/sys/fs/cgroup" + group.rstrip("/")
    least = None
    while folder.startswith("/sys/fs/cgroup"):
        granted = _cgroup_granted(folder)
        if granted is not None and (least is None or granted < least):
            least = granted
        folder = os.path.dirname(folder)
    return least


def _cgroup_granted(folder: str) -> int | None:
    try:
        with open(folder + "/memory.max") as file:
            limit = file.read().strip()
        if limit == "max":
            return None
        with open(folder + "/memory.current") as file:
            used = int(file.read())
        with open(folder + "/memory.stat") as lines:
            cache = sum(int(line.split()[1]) for line in lines if line.startswith(("active_file ", "inactive_file ")))
    except (OSError, ValueError):
        return None
    return int(limit) - used + cache
