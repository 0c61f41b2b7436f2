"""Unix SOCK_SEQPACKET sockets that carry whole messages and, now and then, a descriptor.

Must not know: what the messages say. Everything here works on Python 3.7 (no `socket.send_fds`).
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import stat
import struct
import time
from typing import Iterable

from framelink.errors import AddressTaken, FramelinkError, RingAbsent, RingGone, WireError
from framelink.wire import MAX_MESSAGE

MAX_PATH_BYTES = 107
CONNECT_RETRY_S = 0.02
"""Between two attempts while nobody listens. There is no event to wait for: the path may not even exist."""
SEND_TIMEOUT_S = 2.0
"""Our messages are small and few. Where they find no room for this long, the other end has stopped reading."""
BACKLOG = 64
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_TIMEVAL = struct.Struct("@ll")

_ABSENT = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.EACCES)
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ESHUTDOWN)


def listen(path: str) -> socket.socket:
    """A listening, non-blocking socket at `path`; a path left behind by a dead process is taken over."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise FramelinkError(
            "the socket path %s is longer than %d bytes: use a shorter folder" % (path, MAX_PATH_BYTES)
        )
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        found = None
    if found is not None:
        if not stat.S_ISSOCK(found.st_mode):
            raise AddressTaken("%s exists and is no socket" % path)
        if _answers(path):
            raise AddressTaken("another process serves %s: stop it first" % path)
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def unlink_own(path: str, listener: socket.socket) -> None:
    """Remove the path, unless a successor has already put its own socket there."""
    listener.close()
    try:
        if not _answers(path):
            os.unlink(path)
    except FileNotFoundError:
        pass  # A successor, or the owner of the folder, was quicker.


def connect(path: str, timeout_s: float) -> socket.socket:
    """A connected, non-blocking socket. Waits for somebody to listen; RingAbsent when nobody does in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        connection.setblocking(False)
        try:
            connection.connect(path)
            return connection
        except OSError as error:
            connection.close()
            if error.errno not in _ABSENT:
                raise RingAbsent("%s cannot be connected to: %s" % (path, error)) from error
            left = deadline - time.monotonic()
            if left <= 0:
                raise RingAbsent("nobody serves %s (%s); waited %.1f s" % (path, error.strerror, timeout_s)) from error
        select.select([], [], [], min(CONNECT_RETRY_S, left))


def send(
    connection: socket.socket,
    packet: bytes | memoryview,
    descriptor: int | None = None,
    timeout_s: float = SEND_TIMEOUT_S,
) -> None:
    """One message, whole. RingGone where the other end is gone or has not read for `timeout_s`; 0 means: now or
    never.
    """
    if descriptor is None:
        try:
            connection.send(packet, _NOW)
            return
        except OSError:
            pass  # What follows does it again, and knows what the failure means.
    ancillary: Iterable[tuple[int, int, bytes]] = ()
    if descriptor is not None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())]
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.sendmsg([packet], ancillary, _NOW)
            return
        except BlockingIOError:
            if not ready(connection.fileno(), select.POLLOUT, deadline - time.monotonic()):
                raise RingGone("the other end does not read its messages") from None
        except OSError as error:
            if error.errno in _GONE:
                raise RingGone("the other end has gone: %s" % error.strerror) from error
            raise


def receive(connection: socket.socket, limit: int = MAX_MESSAGE) -> tuple[bytes, int | None] | None:
    """One message and the descriptor that came with it, if any; None if there is none yet.

    RingGone at the end of the connection. WireError for a message that is too long or brings more than one descriptor.
    """
    received = _receive_some(connection, limit)
    if received is None:
        return None
    packet, ancillary, flags = received
    descriptor = None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= 4:
            descriptor = array.array("i", data[:4])[0]
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise WireError("a message that is too long, or with too many descriptors")
        if not packet:
            raise RingGone("the other end has closed the connection")
    except FramelinkError:
        if descriptor is not None:
            os.close(descriptor)
        raise
    return packet, descriptor


def receive_small(connection: socket.socket, limit: int, flags: int = socket.MSG_DONTWAIT) -> bytes | None:
    """As `receive_plain`, in one step: a message that is too long comes cut to `limit`, a descriptor is closed by the
    kernel. With flags = 0, and after `wait_at_most`, it waits.
    """
    try:
        packet = connection.recv(limit, flags)
    except BlockingIOError:
        return None
    except OSError:
        return receive_plain(connection, limit)  # It knows what the failure means.
    if not packet:
        raise RingGone("the other end has closed the connection")
    return packet


def wait_at_most(connection: socket.socket, seconds: float) -> None:
    """How long `receive_small(…, flags=0)` waits from now on: one system call for waiting and receiving, where poll and
    recv are two, and the second one finds the caches cold.
    """
    microseconds = max(1, int(seconds * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(*divmod(microseconds, 1_000_000)))
    connection.setblocking(True)  # Everybody else says MSG_DONTWAIT.


def receive_plain(connection: socket.socket, limit: int = MAX_MESSAGE) -> bytes | None:
    """As `receive`, where no descriptor is due: one that comes all the same is closed."""
    received = receive(connection, limit)
    if received is None:
        return None
    packet, descriptor = received
    if descriptor is not None:
        os.close(descriptor)
    return packet


def _receive_some(connection: socket.socket, limit: int) -> tuple[bytes, list[tuple[int, int, bytes]], int] | None:
    for last in (False, True):
        try:
            packet, ancillary, flags, _ = connection.recvmsg(
                limit, socket.CMSG_LEN(4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
            return packet, ancillary, flags
        except BlockingIOError:
            return None
        except OSError as error:
            # Reset: it left without reading all that we sent. What it said before that is still to be had.
            if error.errno == errno.ECONNRESET and not last:
                continue
            if error.errno in _GONE:
                raise RingGone("the other end has gone: %s" % error.strerror) from error
            raise
    return None


def ready(descriptor: int, events: int, timeout_s: float | None) -> bool:
    """Wait until the descriptor is ready. False when the time is over."""
    if descriptor < 0:
        raise RingGone("the connection is closed")
    poller = select.poll()
    poller.register(descriptor, events)
    return bool(poller.poll(None if timeout_s is None else max(0, int(timeout_s * 1000 + 0.999))))


def _answers(path: str) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    probe.setblocking(False)
    try:
        probe.connect(path)
        return True
    except BlockingIOError:  # Its queue of newcomers is full, so somebody is there.
        return True
    except OSError:
        return False
    finally:
        probe.close()
