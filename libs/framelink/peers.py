"""What a frame writer, a call server and an output receiver share: one listening socket, many peers, one thread.

A peer is another process that need not be trusted: there are at most `max_peers`, each says HELLO in time, and whoever
sends a message that is not in order is disconnected with the reason, and counted. None of that touches the others.

Must not know: what the messages after HELLO mean.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time

from framelink import sockets, wire
from framelink.errors import FramelinkError, WireError

log = logging.getLogger("framelink")

HELLO_TIMEOUT_S = 2.0
"""A connection that has not introduced itself by then is closed: it takes a peer's place."""
TICK_S = 0.25
"""How often waits are looked at; nothing else depends on it."""
MESSAGES_PER_TURN = 64
"""Of one peer, before the others have their turn."""
READY_PER_TURN = 64
"""Peers heard in one turn; further ones have the next."""


class Message:
    """One message from a peer, with the descriptor that came along. Who wants to keep the descriptor takes it."""

    def __init__(self, packet: bytes, descriptor: int | None) -> None:
        self._descriptor = descriptor
        try:
            self.kind, self.body = wire.parse(packet)
        except WireError:
            self.close()
            raise

    def take_descriptor(self) -> int:
        """From here on the descriptor is the caller's to close."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            raise WireError("message %d came without its descriptor" % self.kind)
        return descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Peer:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.name = ""
        self.connected_at = time.monotonic()
        self.introduced = False
        self.closed = False


class PeerServer:
    """The base of the three servers. Subclasses override the hooks; `_start()` begins, `close()` ends.

    `_lock` guards the subclass's state and the set of peers. It is re-entrant, because a forgotten object's `__del__`
    may run in the midst of anything. Raises AddressTaken.
    """

    _largest_message = wire.SMALL_MESSAGE
    """From a peer; what is longer is out of order."""
    _takes_descriptors = True
    """Where none is due, a message is taken in one step, and the poller says whether there is another."""

    def __init__(self, path: str | os.PathLike[str], name: str, max_peers: int) -> None:
        self.path = os.fspath(path)
        self.name = name
        self._max_peers = max_peers
        self._lock = threading.RLock()
        self._peers: dict[int, Peer] = {}
        self._malformed = 0
        self._refused = 0
        self._unread = 0
        """Peers disconnected because they did not read their messages."""
        self._closing = False
        self._deaf = False
        self._listener = sockets.listen(self.path)
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller = select.epoll()
        """Itself, not through `selectors`: a frame's messages are heard in half the time."""
        self._poller.register(self._listener, select.EPOLLIN)
        self._poller.register(self._wake_out, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="framelink-%s" % name, daemon=True)

    def close(self) -> None:
        """Disconnect everybody, stop the thread, remove the socket."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        # First: whoever hears that we end and connects again is to wait for our successor, not to find us.
        sockets.unlink_own(self.path, self._listener)
        with self._lock:
            for peer in list(self._peers.values()):
                self._drop(peer, "%s has stopped" % self.name)
        self._poller.close()
        with self._lock:
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_in = -1

    # --- Hooks -------------------------------------------------------------------------------------------------------

    def _new_peer(self, connection: socket.socket) -> Peer:
        return Peer(connection)

    def _heard(self, peer: Peer, message: Message) -> None:
        """A message, the lock not held. WireError disconnects the peer."""
        raise NotImplementedError

    def _said(self, peer: Peer, packet: bytes) -> None:
        """The same where `_takes_descriptors` is not set."""
        self._heard(peer, Message(packet, None))

    def _left(self, peer: Peer) -> None:
        """The peer's connection has ended; the lock is held."""

    def _turn(self) -> None:
        """After each round of messages, the lock not held."""

    def _tick(self, now: float) -> None:
        """Every TICK_S, the lock held."""

    # --- For subclasses ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread.start()

    def _wake(self) -> None:
        """Make the thread take a turn."""
        with self._lock, contextlib.suppress(BlockingIOError):  # The pipe is full of wake-ups already.
            if self._wake_in >= 0:
                os.write(self._wake_in, b"w")

    def _send(self, peer: Peer, packet: bytes | memoryview, descriptor: int | None = None) -> bool:
        """Now or never: a peer that does not read its few messages is disconnected. The lock is held."""
        if peer.closed:
            return False
        try:
            sockets.send(peer.connection, packet, descriptor, timeout_s=0)
        except (FramelinkError, OSError) as error:
            self._unread += 1
            self._drop(peer, str(error))
            return False
        return True

    def _drop(self, peer: Peer, reason: str) -> None:
        """End a connection, with a word of why if there is one. The lock is held."""
        if peer.closed:
            return
        peer.closed = True
        if reason:
            try:
                sockets.send(peer.connection, wire.goodbye(reason), timeout_s=0)
            except (FramelinkError, OSError) as error:
                log.debug("%s: %s could not be told why it was closed: %s", self.name, peer.name, error)
        self._peers.pop(peer.connection.fileno(), None)
        self._poller.unregister(peer.connection)
        peer.connection.close()
        self._left(peer)

    # --- The thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        listener = self._listener.fileno()
        now = time.monotonic()
        next_tick = now + TICK_S
        while not self._closing:
            for descriptor, _ in self._poller.poll(max(0.0, next_tick - now), READY_PER_TURN):
                if descriptor == listener:
                    self._accept()
                elif descriptor == self._wake_out:
                    os.read(self._wake_out, 4096)
                else:
                    self._hear(descriptor)
            self._turn()
            now = time.monotonic()
            if now >= next_tick:
                self._look_after_waits(now)
                next_tick = now + TICK_S

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # It has gone again.
        except OSError as error:  # No descriptors left, most likely: newcomers stay in the queue until the next tick.
            log.warning("%s: nobody can be accepted for now: %s", self.name, error)
            self._poller.unregister(self._listener)
            self._deaf = True
            return
        connection.setblocking(False)
        peer = self._new_peer(connection)
        with self._lock:
            full = len(self._peers) >= self._max_peers
            self._poller.register(connection, select.EPOLLIN)
            self._peers[connection.fileno()] = peer
            if full:
                self._refused += 1
                self._drop(peer, "%s already serves %d" % (self.name, self._max_peers))

    def _hear(self, descriptor: int) -> bool:
        """What the peer has said, one message or some. False: nothing, or it is disconnected."""
        peer = self._peers.get(descriptor)
        if peer is None:
            return False
        try:
            if not self._takes_descriptors:
                packet = sockets.receive_small(peer.connection, self._largest_message)
                if packet is not None:
                    self._said(peer, packet)
                return packet is not None
            for _ in range(MESSAGES_PER_TURN):
                received = sockets.receive(peer.connection, self._largest_message)
                if received is None:
                    return True
                message = Message(*received)
                try:
                    if peer.closed:
                        return False
                    self._heard(peer, message)
                finally:
                    message.close()
            return True
        except ConnectionError:
            with self._lock:
                self._drop(peer, "")
        except FramelinkError as error:
            if not peer.closed:
                log.warning("%s: %r is disconnected: %s", self.name, peer.name, error)
            with self._lock:
                self._malformed += not peer.closed
                self._drop(peer, str(error))
        except OSError as error:
            log.warning("%s: the connection to %r failed: %s", self.name, peer.name, error)
            with self._lock:
                self._drop(peer, "")
        except Exception:
            # A fault of ours or of our owner's handler ends one connection, not the service for all.
            log.exception("%s: a message of %r could not be handled", self.name, peer.name)
            with self._lock:
                self._drop(peer, "an internal error of %s" % self.name)
        return False

    def _look_after_waits(self, now: float) -> None:
        if self._deaf:
            self._poller.register(self._listener, select.EPOLLIN)
            self._deaf = False
        with self._lock:
            for peer in list(self._peers.values()):
                if not peer.introduced and now - peer.connected_at > HELLO_TIMEOUT_S:
                    self._malformed += 1
                    self._drop(peer, "no HELLO within %.0f s" % HELLO_TIMEOUT_S)
            self._tick(now)
