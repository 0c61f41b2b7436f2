"""A reader's question for the BGR picture of a frame that it was given without one: the writer makes it in the frame's slot.

On a connection of its own, made at the first question: on the one that brings frames a writer may hear of it with its next
frame only (`FrameWriter.hear`), and other threads wait there for frames, which would have to be handed on to them.

Must not know: what is done with the picture, or how it is converted where the writer does not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from framelink import sockets, wire
from framelink.errors import FramelinkError, WireError

BGR_TIMEOUT_S = 1.0
"""A writer that has not made a picture by then (0.3 to 1 ms of work) is hung, or its machine is."""
BGR_PAUSE_S = 10.0
"""So long a writer that did not answer is not asked again."""


class LateBgr:
    """Questions to the writer at `path` about its ring `ring_id`, from any thread, one at a time."""

    def __init__(self, path: str, name: str, ring_id: int) -> None:
        self._path = path
        self._name = name
        self._ring_id = ring_id
        # Re-entrant: a forgotten frame's __del__ may end the connection in the midst of a question.
        self._lock = threading.RLock()
        # A forked child has the socket, too, and must not end it.
        self._owner = os.getpid()
        self._socket: socket.socket | None = None
        self._asks_from = 0.0
        self._closed = False

    def made(self, slot: int, sequence: int) -> bool:
        """It stands in the slot from now on, and the slot's notice says so.

        False, after BGR_TIMEOUT_S at most: the writer has gone, is hung or cannot, or the frame is not in its slot any more.
        """
        with self._lock:
            made = not self._closed and time.monotonic() >= self._asks_from and self._asked(slot, sequence)
        if self._closed:
            self.close()  # Whoever closed it left it to us.
        return made

    def close(self) -> None:
        """Whoever waits has no answer. Does not wait itself."""
        self._closed = True
        connection = self._socket
        if connection is not None and self._owner == os.getpid():
            with contextlib.suppress(OSError):  # The writer has ended it.
                connection.shutdown(socket.SHUT_RDWR)
        if self._lock.acquire(blocking=False):
            try:
                self._hang_up()
            finally:
                self._lock.release()

    def _asked(self, slot: int, sequence: int) -> bool:
        try:
            if self._socket is None:
                self._socket = sockets.connect(self._path, 0)
                sockets.wait_at_most(self._socket, BGR_TIMEOUT_S)
            connection = self._socket
            question = wire.make_bgr(self._ring_id, slot, sequence, self._name)
            sockets.send(connection, question, timeout_s=BGR_TIMEOUT_S)
            packet = sockets.receive_small(connection, wire.SMALL_MESSAGE, flags=0)
            if packet is not None:
                kind, body = wire.parse(packet)
                if kind == wire.MADE_BGR:
                    answered_slot, answered_sequence, made = wire.parse_made_bgr(body)
                    if (answered_slot, answered_sequence) != (slot, sequence):
                        raise WireError("an answer about frame %d, asked was %d" % (answered_sequence, sequence))
                    return made
        except (FramelinkError, OSError):
            pass  # The same as no answer: the caller converts for itself, and hears of a writer that has gone by its frames.
        # An answer that comes later must not be taken for that to another question.
        self._hang_up()
        self._asks_from = time.monotonic() + BGR_PAUSE_S
        return False

    def _hang_up(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
