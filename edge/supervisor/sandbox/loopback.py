"""Listening sockets in a sandbox's network namespace, accepted outside of it: the one way across, and no program runs
inside for it.

Run as a program: `python loopback.py PID PORT…` with a unix socket as standard output. It joins the network namespace
of the process PID, binds each port of its loopback, and passes the sockets back in one message. This needs no
privilege: the namespace belongs to a user namespace that the same user made, and its maker may enter it. A process of
its own, because a program with threads may not change its user namespace.

Standard library only, and started without site packages: it stands in the way of every application's start.
"""

import ctypes
import fcntl
import os
import socket
import sys

NS_GET_USERNS = 0xB701
"""ioctl on a namespace: the user namespace that owns it (linux/nsfs.h)."""
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
BACKLOG = 64


def main(pid: int, ports: list[int]) -> None:
    """Joins, binds, passes on."""
    net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    owner = fcntl.ioctl(net, NS_GET_USERNS)
    _join(owner, CLONE_NEWUSER)
    _join(net, CLONE_NEWNET)
    sockets = [_listen(port) for port in ports]
    with socket.socket(fileno=os.dup(1)) as out:
        socket.send_fds(out, [b"listening"], [sock.fileno() for sock in sockets])


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
    main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]])
