"""From an address to a connected socket: names, TCP, TLS. Every step ends in time and can be ended from outside."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
from typing import Any

from ._target import Target
from ._wire import Waker, Wire, wait_for
from .errors import ClientError, ProtocolError, ServerUnreachable

LOOK_UP_STEP_S = 0.05
"""How soon a client that is closed while a name is looked up notices: the resolver itself cannot be interrupted."""

Address = tuple[socket.AddressFamily, Any]


def connect(
    target: Target, waker: Waker, deadline: float, timeout_s: float, connect_timeout_s: float, *, verify: bool
) -> Wire:
    """A connection to the target, with TLS for rtsps. `timeout_s` is for the message alone. Raises ServerUnreachable,
    ProtocolError (no TLS there) and ClientClosed.
    """
    addresses = _look_up(target, waker, deadline, timeout_s)
    failure: OSError = TimeoutError()
    for number, (family, address) in enumerate(addresses):
        # Each address gets its share of the time that is left: one that does not answer must not take all of it.
        now = time.monotonic()
        until = now + min(connect_timeout_s, max(0.0, deadline - now) / (len(addresses) - number))
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _connect(sock, address, waker, until)
            if target.scheme == "rtsps":
                sock = _secure(sock, target.host, waker, deadline, verify)
            return Wire(sock, waker)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise _failed(target, failure, min(timeout_s, connect_timeout_s))


def no_answer(target: Target, timeout_s: float) -> ServerUnreachable:
    """Nothing came back in time."""
    why = f"does not answer within {timeout_s:g} s; check the address, the network and that it is switched on"
    return ServerUnreachable(target.server, "timeout", why)


def _look_up(target: Target, waker: Waker, deadline: float, timeout_s: float) -> list[Address]:
    found: list[Address] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            found.extend((family, address) for family, _, _, _, address in rows)
        except OSError as error:
            failed.append(error)

    # getaddrinfo knows no timeout and no interruption. The thread is left to itself where it does not come back.
    thread = threading.Thread(target=ask, name="rtsp look-up", daemon=True)
    thread.start()
    while thread.is_alive():
        left = deadline - time.monotonic()
        if left <= 0:
            raise no_answer(target, timeout_s)
        waker.check()
        thread.join(min(left, LOOK_UP_STEP_S))
    if failed or not found:
        raise ServerUnreachable(target.server, "name", "has a name that is not known here; check the URL and the DNS")
    return found


def _connect(sock: socket.socket, address: Any, waker: Waker, deadline: float) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        if not wait_for(sock.fileno(), select.POLLOUT, waker, deadline):
            raise TimeoutError
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _secure(sock: socket.socket, host: str, waker: Waker, deadline: float, verify: bool) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    secured = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secured.do_handshake()
                return secured
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            if not wait_for(secured.fileno(), wanted, waker, deadline):
                raise TimeoutError
    except BaseException:
        secured.close()  # wrap_socket has taken the socket over
        raise


def _failed(target: Target, error: OSError, timeout_s: float) -> ClientError:
    server = target.server
    if isinstance(error, TimeoutError):
        return no_answer(target, timeout_s)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = "shows a certificate that is not to be trusted; install its authority, or switch the check off"
        return ServerUnreachable(server, "certificate", why)
    if isinstance(error, ssl.SSLError):
        return ProtocolError(f"{server} does not speak TLS as rtsps:// needs it; try rtsp://")
    if isinstance(error, ConnectionRefusedError):
        return ServerUnreachable(server, "refused", "refuses connections; check the port, and that RTSP is switched on")
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return ServerUnreachable(server, "closed", "closed the connection before the stream began")
    what = os.strerror(error.errno) if error.errno else type(error).__name__
    return ServerUnreachable(server, "network", f"cannot be reached ({what}); check the address and the network")
