"""The gate of a sandbox: makes the listening sockets in its network namespace, then lets it go, or ends it.

Run as a program: `python gate.py PID FD PORT…`, with a unix socket as standard output and a pipe from the supervisor as
standard input. It joins the network namespace of PID, the sandbox's first process, binds each port of its loopback and
passes the sockets out in one message: so they are accepted outside, and no program runs inside for it. This needs no
privilege: the namespace belongs to a user namespace that the same user made, and its maker may enter it.

Then it waits. A byte from the supervisor: it writes to FD, for which bubblewrap waits, and stays until the application's
process is there. The end of the pipe instead: the supervisor has died, and PID, which would take the end of its own pipe
for leave to go and is not yet tied to anybody's life, is killed.

As `python gate.py PID FD` with FD = "sockets:COUNT", nothing waits: it passes out so many TCP sockets of that namespace, not yet
connected, for the ways in (edge.supervisor.ports).

A process of its own, because a program with threads may not change its user namespace, and because it has to outlive
the supervisor. Standard library only, and started without site packages: it stands in the way of every start.
"""

import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import time

NS_GET_USERNS = 0xB701
"""ioctl on a namespace: the user namespace that owns it (linux/nsfs.h)."""
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
BACKLOG = 64
BEGIN_TIMEOUT_S = 5.0
"""For bubblewrap to start the application, once let go: 1 ms on an idle machine."""
LOOK_EVERY_S = 0.001


def main(pid: int, go: int, ports: list[int]) -> None:
    """Makes the way out, then lets the sandbox go. Whatever fails, nothing is left waiting that could go by itself."""
    try:
        _pass_out(pid, ports)
        _let_go(pid, go)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def give(pid: int, count: int) -> None:
    """Passes out sockets of the sandbox's network."""
    _enter(pid)
    _send([socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)])


def _pass_out(pid: int, ports: list[int]) -> None:
    if ports:
        _enter(pid)
    _send([_listen(port) for port in ports])


def _enter(pid: int) -> None:
    net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    owner = fcntl.ioctl(net, NS_GET_USERNS)
    _join(owner, CLONE_NEWUSER)
    _join(net, CLONE_NEWNET)


def _send(sockets: list[socket.socket]) -> None:
    with socket.socket(fileno=os.dup(1)) as out:
        socket.send_fds(out, [b"ready"], [sock.fileno() for sock in sockets])


def _let_go(pid: int, go: int) -> None:
    if not os.read(0, 1):
        os.kill(pid, signal.SIGKILL)
        return
    os.write(go, b"\n")
    end = time.monotonic() + BEGIN_TIMEOUT_S
    while not _has_begun(pid) and time.monotonic() < end:
        time.sleep(LOOK_EVERY_S)
    # From here on it dies with bubblewrap, and that with the supervisor. Has that died meanwhile?
    if select.select([0], [], [], 0)[0] and not os.read(0, 1):
        os.kill(pid, signal.SIGKILL)


def _has_begun(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as children:  # noqa: PTH123 - pathlib takes 10 ms to import
            return bool(children.read())
    except (FileNotFoundError, ProcessLookupError):
        return True  # and has ended already


def _listen(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(BACKLOG)
    return sock


def _join(namespace: int, kind: int) -> None:
    # os.setns is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


if __name__ == "__main__":
    if sys.argv[2].startswith("sockets:"):
        give(int(sys.argv[1]), int(sys.argv[2].partition(":")[2]))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]), [int(port) for port in sys.argv[3:]])
