"""Which system calls a sandbox may not make: one policy, given to bubblewrap as a compiled filter and to runc as the
`seccomp` part of its configuration. Pure.

A deny list, after Docker's default profile: what needs a privilege that a sandbox never has, what opens large parts of
the kernel that a vision application has no use for (io_uring, bpf, perf, keys, user namespaces, userfaultfd), and what
reaches past its namespaces (AF_VSOCK: a virtual machine's socket to its host is in no network namespace).

Denied calls fail with EPERM, clone3 with ENOSYS: its flags lie in memory, where no filter can see them, and the C
library then falls back to clone. A call by another architecture's convention (32-bit, x32) ends the process: its
numbers mean other calls.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """How a machine numbers its calls."""

    audit: int
    """AUDIT_ARCH_*, in every seccomp_data (linux/audit.h)."""
    oci: str
    """Its name in runc's configuration."""
    column: int
    """Of CALLS."""
    first_foreign: int | None = None
    """Numbers from here on are another convention of the same machine."""


X86_64 = Architecture(0xC000003E, "SCMP_ARCH_X86_64", 0, first_foreign=0x40000000)
AARCH64 = Architecture(0xC00000B7, "SCMP_ARCH_AARCH64", 1)
ARCHITECTURES = {"x86_64": X86_64, "aarch64": AARCH64}

DENIED: Mapping[str, tuple[int | None, int | None]] = {
    # the kernel itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "query_module": (178, None),
    "get_kernel_syms": (177, None),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "_sysctl": (156, None),
    "sysfs": (139, None),
    "lookup_dcookie": (212, 18),
    "ioperm": (173, None),
    "iopl": (172, None),
    "lsm_set_self_attr": (460, 460),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "open_tree_attr": (467, 467),
    "unshare": (272, 97),
    "setns": (308, 268),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # large parts of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "fanotify_init": (300, 262),
    "open_by_handle_at": (304, 265),
    "uselib": (134, None),
    "ustat": (136, None),
    # what belongs to the whole machine
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "nfsservctl": (180, 42),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "vhangup": (153, 58),
}
"""Numbers on (x86_64, aarch64); None: it is not there. Source: the kernel's tables of system calls."""

CLONE = (56, 220)
CLONE3 = (435, 435)
IOCTL = (16, 29)
SOCKET = (41, 198)

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
TERMINAL_REQUESTS = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX put characters into a terminal's input."""
SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK (the C library asks it for the interfaces)."""
LAST_FAMILY = 63

_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD|W|ABS, BPF_JMP|JEQ|K, JGE, JSET, BPF_RET|K (linux/bpf_common.h)."""
_NR, _ARCH, _ARGS = 0, 4, 16
"""Offsets in struct seccomp_data (linux/seccomp.h). Little-endian: an argument's low half comes first."""

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, k)"""


def here() -> Architecture | None:
    """This machine's; None where no filter is known for it."""
    return ARCHITECTURES.get(platform.machine())


def compiled(architecture: Architecture) -> bytes:
    """The filter as an array of struct sock_filter, for bubblewrap's --seccomp."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program(architecture))


def program(architecture: Architecture) -> list[Instruction]:
    """The filter's instructions."""
    column = architecture.column
    denied = _RETURN, 0, 0, _RET_ERRNO | errno.EPERM
    made: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _RET_KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
    ]
    if architecture.first_foreign is not None:
        made += [(_AT_LEAST, 0, 1, architecture.first_foreign), (_RETURN, 0, 0, _RET_KILL_PROCESS)]
    for numbers in DENIED.values():
        if (number := numbers[column]) is not None:
            made += [(_EQUAL, 0, 1, number), denied]
    made += [(_EQUAL, 0, 1, CLONE3[column]), (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS)]
    # The kernel reads the low half of these arguments and nothing more.
    made += _call(CLONE[column], 0, [(_ANY_BIT, 0, 1, NAMESPACE_FLAGS), denied])
    made += _call(IOCTL[column], 1, _each(TERMINAL_REQUESTS, denied))
    allowed: Instruction = (_RETURN, 0, 0, _RET_ALLOW)
    refused: Instruction = (_RETURN, 0, 0, _RET_ERRNO | errno.EAFNOSUPPORT)
    made += _call(SOCKET[column], 0, [*_each(SOCKET_FAMILIES, allowed), refused])
    return [*made, allowed]


def _each(values: Iterable[int], answer: Instruction) -> list[Instruction]:
    return [step for value in values for step in ((_EQUAL, 0, 1, value), answer)]


def _call(number: int, argument: int, checks: list[Instruction]) -> list[Instruction]:
    """Checks of one argument of one call; then the call's number is loaded again."""
    steps = [(_LOAD, 0, 0, _ARGS + 8 * argument), *checks, (_LOAD, 0, 0, _NR)]
    return [(_EQUAL, 0, len(steps), number), *steps]


def oci(architecture: Architecture) -> dict[str, Any]:
    """The same for runc: `linux.seccomp` of its configuration."""
    names = sorted(name for name, numbers in DENIED.items() if numbers[architecture.column] is not None)
    families = sorted(set(range(LAST_FAMILY + 1)) - set(SOCKET_FAMILIES))
    rules: list[dict[str, Any]] = [
        _rule(names, errno.EPERM),
        _rule(["clone3"], errno.ENOSYS),
        *(_rule(["ioctl"], errno.EPERM, 1, request, "SCMP_CMP_MASKED_EQ") for request in TERMINAL_REQUESTS),
        *(_rule(["socket"], errno.EAFNOSUPPORT, 0, family, "SCMP_CMP_EQ") for family in families),
        _rule(["socket"], errno.EAFNOSUPPORT, 0, LAST_FAMILY, "SCMP_CMP_GT"),
    ]
    flag = 1
    while flag <= NAMESPACE_FLAGS:
        if flag & NAMESPACE_FLAGS:
            rules.append(_rule(["clone"], errno.EPERM, 0, flag, "SCMP_CMP_MASKED_EQ", flag))
        flag <<= 1
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture.oci], "syscalls": rules}


def _rule(
    names: list[str], number: int, index: int | None = None, value: int = 0, op: str = "", mask: int | None = None
) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number}
    if index is not None:
        first, second = (value, 0)
        if op == "SCMP_CMP_MASKED_EQ":
            # runc: value is the mask, valueTwo what is to be under it.
            first, second = (mask if mask is not None else 0xFFFFFFFF, value)
        rule["args"] = [{"index": index, "value": first, "valueTwo": second, "op": op}]
    return rule
