"""The filter of system calls, run by an interpreter of its own; that the kernel takes it, the sandboxes' contract shows."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from edge.supervisor.sandbox import seccomp
from edge.supervisor.sandbox.seccomp import AARCH64, X86_64, Architecture

ALLOW, KILL = 0x7FFF0000, 0x80000000
BOTH = pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86_64", "aarch64"])


def refused(number: int) -> int:
    return 0x50000 | number


def verdict(machine: Architecture, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel would do with a call."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, machine.audit if audit is None else audit, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", seccomp.compiled(machine)))
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x06:
                return int(k)
            case 0x15 | 0x35 | 0x45:
                true = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
                at += if_true if true else if_false
            case _:
                raise AssertionError(f"no such operation: {operation:#x}")


@BOTH
def test_what_is_denied_fails_and_the_rest_passes(machine: Architecture) -> None:
    denied = {numbers[machine.column] for numbers in seccomp.DENIED.values()} - {None}
    special = {numbers[machine.column] for numbers in (seccomp.CLONE3, seccomp.SOCKET)}
    for number in range(600):
        expected = refused(errno.EPERM) if number in denied else ALLOW
        if number not in special:
            assert verdict(machine, number) == expected, number


@BOTH
def test_threads_and_children_pass_and_new_namespaces_do_not(machine: Architecture) -> None:
    number = seccomp.CLONE[machine.column]
    thread, fork = 0x3D0F00, 0x1200011
    assert verdict(machine, number, thread) == verdict(machine, number, fork) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, number, flag | 17) == refused(errno.EPERM)
        assert verdict(machine, number, flag | 1 << 63) == refused(errno.EPERM)
    assert verdict(machine, seccomp.CLONE3[machine.column]) == refused(errno.ENOSYS)


@BOTH
def test_sockets_of_this_machine_pass_and_those_that_no_namespace_holds_do_not(machine: Architecture) -> None:
    number = seccomp.SOCKET[machine.column]
    passed = [family for family in range(100) if verdict(machine, number, family, 1) == ALLOW]
    assert passed == [1, 2, 10, 16]
    assert verdict(machine, number, 40) == refused(errno.EAFNOSUPPORT)


@BOTH
def test_nobody_types_into_a_terminal(machine: Architecture) -> None:
    number = seccomp.IOCTL[machine.column]
    assert verdict(machine, number, 0, 0x5401) == ALLOW
    # The kernel looks at the low half only; so does the filter.
    for request in (0x5412, 0x541C, 0x1_0000_5412):
        assert verdict(machine, number, 0, request) == refused(errno.EPERM)


def test_calls_by_another_convention_end_the_process() -> None:
    assert verdict(X86_64, 1, audit=0x40000003) == KILL
    assert verdict(X86_64, 0x40000001) == KILL
    assert verdict(AARCH64, 1, audit=0x40000028) == KILL


@pytest.mark.parametrize(
    ("machine", "header", "prefix"),
    [
        (X86_64, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"__NR_"),
        (AARCH64, "/usr/include/asm-generic/unistd.h", r"__NR3?2?6?4?_?"),
    ],
    ids=["x86_64", "aarch64"],
)
def test_the_numbers_are_those_of_the_kernels_headers(machine: Architecture, header: str, prefix: str) -> None:
    if not Path(header).exists():
        pytest.skip("no kernel headers here: linux-libc-dev")
    known = {
        name: int(number) for name, number in re.findall(rf"#define {prefix}(\w+)\s+(\d+)", Path(header).read_text())
    }
    ours = {**seccomp.DENIED, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3}
    ours |= {"ioctl": seccomp.IOCTL, "socket": seccomp.SOCKET}
    compared = 0
    for name, numbers in ours.items():
        if name in known:
            assert numbers[machine.column] == known[name], name
            compared += 1
    assert compared > 50


@BOTH
def test_runc_is_told_the_same(machine: Architecture) -> None:
    told = seccomp.oci(machine)
    (first, *_) = told["syscalls"]
    assert first["names"] == sorted(n for n, numbers in seccomp.DENIED.items() if numbers[machine.column] is not None)
    families = {rule["args"][0]["value"] for rule in told["syscalls"] if rule["names"] == ["socket"]}
    assert families.isdisjoint({1, 2, 10, 16}) and 40 in families
    flags = [rule["args"][0] for rule in told["syscalls"] if rule["names"] == ["clone"]]
    assert sum(flag["value"] for flag in flags) == seccomp.NAMESPACE_FLAGS
    assert all(flag["value"] == flag["valueTwo"] for flag in flags)
