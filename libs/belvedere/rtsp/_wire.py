"""One client's socket: waits that end in time and can be ended from another thread, and a fixed buffer in front of it.

Knows the framing of RTSP (messages and `$` frames), nothing of what is in it. Every byte is copied once, out of the
buffer, by who takes a frame; a frame is only valid until the next `fill`.
"""

from __future__ import annotations

import contextlib
import math
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

from ._messages import MAX_BODY, MAX_EMPTY_LINES, MAX_HEADER_BYTES, MAX_LINE, Request, Response, parse_head
from .errors import ClientClosed, ProtocolError

Message = Response | Request

BUFFER_BYTES = 256 * 1024
"""Holds the largest frame (64 KiB) and the largest message; filled with one read while there is room."""
FRAME_MAX = 4 + 0xFFFF
LOOK_S = 0.5
"""`more` waits no longer at a time, so that the usual wait needs no time of its own set: no camera worth its name sends less often."""
_TIMEVAL = struct.Struct("@ll")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_MESSAGE_START = re.compile(rb"[A-Z_a-z]")
_STATUS_LINE = re.compile(r"RTSP/\d\.\d (\d{3})(?: .*)?")
_REQUEST_LINE = re.compile(r"([A-Z_]{1,32}) (\S+) (RTSP/\d\.\d)")


class WireClosed(Exception):
    """The server has closed the connection, or it broke."""


class Waker:
    """Ends the waits of one client, from any thread, for good."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._lock = threading.Lock()
        self._reading: socket.socket | None = None
        self.closed = False

    def fileno(self) -> int:
        return self._near.fileno()

    def wake(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._far.close()  # the other end becomes readable, and stays so
            self._end_reading()

    def ends(self, sock: socket.socket | None) -> None:
        """`wake` also ends the blocking reads of this one; None: of none any more."""
        with self._lock:
            self._reading = sock
            if self.closed:
                self._end_reading()

    def _end_reading(self) -> None:
        if self._reading is not None:
            with contextlib.suppress(OSError):  # the server may have closed it
                self._reading.shutdown(socket.SHUT_RD)

    def check(self) -> None:
        """Raises ClientClosed after `wake`."""
        if self.closed:
            raise ClientClosed

    def release(self) -> None:
        """Lets the sockets go, when nobody waits any more."""
        self._near.close()
        self._far.close()


class Wire:
    """A connected socket."""

    def __init__(self, sock: socket.socket, waker: Waker) -> None:
        self.buffer = bytearray(BUFFER_BYTES)
        self.view = memoryview(self.buffer)
        self.at = self.end = 0
        self.arrived_ns = 0
        """CLOCK_MONOTONIC of the last read."""
        self._sock = sock
        self._fd = sock.fileno()
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._waker = waker
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll.register(waker, select.POLLIN)
        self._blank = 0
        self._waits_s = 0.0
        if self._tls is None:
            # Blocking, with a time limit of the kernel's (`more`): waiting and reading are one call. What must not block says so.
            sock.setblocking(True)
            waker.ends(sock)

    @property
    def addresses(self) -> tuple[str, str]:
        """The own and the server's IP address."""
        return self._sock.getsockname()[0], self._sock.getpeername()[0]

    @property
    def family(self) -> socket.AddressFamily:
        return self._sock.family

    def watch(self, sock: socket.socket) -> None:
        """`wait` also waits for this one."""
        self._poll.register(sock, select.POLLIN)

    def wait(self, deadline: float) -> bool:
        """Until something can be read (True) or `deadline` (CLOCK_MONOTONIC, seconds; False). Raises ClientClosed."""
        if self._tls is not None and self._tls.pending():
            return True
        ready = self._poll.poll(_milliseconds(deadline))
        self._waker.check()
        return bool(ready)

    def more(self, wait_s: float) -> bool:
        """Waits for more, and reads it. False: nothing came; after `wait_s`, or LOOK_S, or sooner. Raises ClientClosed, WireClosed."""
        if self._tls is not None:
            return self.wait(time.monotonic() + wait_s) and self.fill()
        if wait_s <= 0:
            return self.fill()
        wait_s = min(wait_s, LOOK_S)
        if wait_s != self._waits_s:
            self._waits_s = wait_s
            whole = int(wait_s)
            limit = _TIMEVAL.pack(whole, max(1, int((wait_s - whole) * 1e6)))  # nothing at all would be for ever
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        return self.fill(0)

    def fill(self, how: int = socket.MSG_DONTWAIT) -> bool:
        """Reads what is there; False when there is nothing. Raises WireClosed, ClientClosed. `how`: 0 waits, see `more`."""
        if self.at == self.end:
            self.at = self.end = 0
        elif BUFFER_BYTES - self.end < FRAME_MAX:
            left = self.end - self.at
            self.buffer[:left] = self.buffer[self.at : self.end]
            self.at, self.end = 0, left
        if self.end == BUFFER_BYTES:
            raise ProtocolError("the server sends more than a message or a frame may be long")
        try:
            size = self._sock.recv_into(self.view[self.end :], 0, 0 if self._tls is not None else how)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._waker.check()
            return False
        except OSError as error:
            raise WireClosed(error.strerror or type(error).__name__) from error
        self.arrived_ns = time.monotonic_ns()
        if not size:
            self._waker.check()
            raise WireClosed("closed")
        self.end += size
        return True

    def send(self, data: bytes, deadline: float) -> None:
        """Sends all of it. Raises WireClosed, also where the server takes nothing until `deadline`; ClientClosed."""
        left = memoryview(data)
        how = 0 if self._tls is not None else socket.MSG_DONTWAIT
        while left:
            try:
                left = left[self._sock.send(left, how) :]
                continue
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except (BlockingIOError, ssl.SSLWantWriteError):
                wanted = select.POLLOUT
            except OSError as error:
                raise WireClosed(error.strerror or type(error).__name__) from error
            if not wait_for(self._fd, wanted, self._waker, deadline):
                raise WireClosed("takes no requests")

    def send_last(self, data: bytes, timeout_s: float) -> None:
        """Sends before `close`, also after the waker's end; does without where it does not go at once."""
        with contextlib.suppress(OSError, ValueError):  # the server may be gone: then there is nobody to tell
            self._sock.settimeout(timeout_s)
            self._sock.sendall(data)

    def taken(self, at: int) -> None:
        """The frames before `at` have been taken out of the buffer."""
        self.at = at
        self._blank = 0

    def advance(self, on_frame: Callable[[int, memoryview, int], bool]) -> Message | None:
        """Takes what is in the buffer: frames go to `on_frame(channel, data, arrived_ns)` until it says True or a
        message stands there, which is given back; None when the buffer has no more, or `on_frame` said True. Raises
        ProtocolError.
        """
        buffer, view = self.buffer, self.view
        while self.at < self.end:
            at, end = self.at, self.end
            if buffer[at] != 0x24:
                message = self._message()
                if message is None and self.at == at:
                    return None
                if message is not None:
                    return message
                continue
            if end - at < 4:
                return None
            following = at + 4 + (buffer[at + 2] << 8 | buffer[at + 3])
            if following > end:
                return None
            self.at = following
            self._blank = 0
            if on_frame(buffer[at + 1], view[at + 4 : following], self.arrived_ns):
                return None
        return None

    def _message(self) -> Message | None:
        """The message that stands in front, once it is there as a whole. Empty lines before it are skipped."""
        while self.at < self.end and self.buffer[self.at] in b"\r\n":
            self.at += 1
            self._blank += 1
            if self._blank > 2 * MAX_EMPTY_LINES:
                raise ProtocolError("the server sends nothing but empty lines")
        if self.at == self.end or self.buffer[self.at] == 0x24:
            return None
        at, end = self.at, self.end
        if _MESSAGE_START.match(self.buffer, at, end) is None:
            raise ProtocolError("the server sends something that is no RTSP")
        head = _END_OF_HEAD.search(self.buffer, at, min(end, at + MAX_HEADER_BYTES))
        if head is None:
            first_line = self.buffer.find(b"\n", at, end)
            if end - at >= MAX_HEADER_BYTES or (first_line < 0 and end - at > MAX_LINE):
                raise ProtocolError("the server's headers are too long")
            if first_line >= 0:
                _first_line(bytes(self.buffer[at:first_line]).decode("utf-8", "replace").strip())
            return None
        try:
            first, headers = parse_head(bytes(self.buffer[at : head.start()]))
        except ValueError:
            raise ProtocolError("the server's headers cannot be read") from None
        status, request = _first_line(first.strip())
        lengths = [value for name, value in headers if name == "content-length"] or ["0"]
        if not (lengths[0].isascii() and lengths[0].isdigit()):
            raise ProtocolError("the server's Content-Length is not a number")
        if len(lengths[0]) > 9 or int(lengths[0]) > MAX_BODY:
            raise ProtocolError(f"the server's message is longer than {MAX_BODY} bytes")
        body_end = head.end() + int(lengths[0])
        if body_end > end:
            return None
        body = bytes(self.buffer[head.end() : body_end])
        self.at = body_end
        self._blank = 0
        if status is not None:
            return Response(status, headers, body)
        return Request(*request, headers=dict(headers), body=body)

    def close(self) -> None:
        self._waker.ends(None)
        with contextlib.suppress(OSError):  # the server may have closed it
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def _first_line(line: str) -> tuple[int | None, tuple[str, str, str]]:
    """The status of a response, or method, URI and version of a request."""
    status = _STATUS_LINE.fullmatch(line)
    if status is not None:
        return int(status[1]), ("", "", "")
    request = _REQUEST_LINE.fullmatch(line)
    if request is None:
        raise ProtocolError("the server sends something that is no RTSP")
    return None, (request[1], request[2], request[3])


def wait_for(fd: int, events: int, waker: Waker, deadline: float) -> bool:
    """Until `fd` is ready (True) or `deadline` (False). Raises ClientClosed."""
    poll = select.poll()
    poll.register(fd, events)
    poll.register(waker, select.POLLIN)
    ready = poll.poll(_milliseconds(deadline))
    waker.check()
    return bool(ready)


def _milliseconds(deadline: float) -> int:
    return max(0, math.ceil((deadline - time.monotonic()) * 1000))
