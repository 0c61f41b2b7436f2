"""RTP over UDP: a pair of sockets, and a window in which packets are put back in order.

Packets of anybody but the server are left out. Knows nothing of what the packets carry but their sequence numbers.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from ._carrier import port_pair

MAX_HELD_PACKETS = 64
MAX_HELD_S = 0.03
"""How long a missing packet is waited for: those that overtake each other do so within milliseconds, and every picture
behind the gap waits too.
"""
RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024
"""Asked of the kernel, which gives less where it is told to: a key frame comes at once."""
MAX_PER_TURN = 256
"""Datagrams read before other things have their turn."""
_DATAGRAM_MAX = 65_536
_LATE = 0x8000

OnPacket = Callable[[memoryview, int], None]


class ReorderWindow:
    """Packets in, packets in order out. Waits for a missing one, for a short while."""

    def __init__(
        self, on_packet: OnPacket, max_packets: int = MAX_HELD_PACKETS, max_held_s: float = MAX_HELD_S
    ) -> None:
        self._on_packet = on_packet
        self._max_packets = max_packets
        self._max_held_ns = int(max_held_s * 1e9)
        self._next: int | None = None
        self._held: dict[int, tuple[bytes, int]] = {}
        self._strange: int | None = None
        self.late = 0
        """Packets that came after they had been given up, or twice."""

    @property
    def due_ns(self) -> int | None:
        """When `expire` has something to do; None: nothing is held."""
        return min(arrived for _, arrived in self._held.values()) + self._max_held_ns if self._held else None

    def add(self, packet: memoryview, arrived_ns: int) -> None:
        if len(packet) < 4:
            return
        sequence = packet[2] << 8 | packet[3]
        if self._next is None:
            self._next = sequence
        ahead = (sequence - self._next) & 0xFFFF
        if ahead == 0:
            self._strange = None
            self._next = (sequence + 1) & 0xFFFF
            self._on_packet(packet, arrived_ns)
            if self._held:
                self._release()
        elif ahead < self._max_packets * 4:
            self._strange = None
            self._held.setdefault(sequence, (bytes(packet), arrived_ns))
            while len(self._held) > self._max_packets:
                self._give_up()
        elif ahead >= _LATE and 0x10000 - ahead <= self._max_packets * 4:
            self.late += 1
        elif sequence == self._strange:
            # Two in a row from elsewhere: the camera counts from anew (RFC 3550 §A.1).
            self._held.clear()
            self._strange = None
            self._next = (sequence + 1) & 0xFFFF
            self._on_packet(packet, arrived_ns)
        else:
            self.late += 1
            self._strange = (sequence + 1) & 0xFFFF

    def expire(self, now_ns: int) -> None:
        """Gives up what has been waited for long enough."""
        while (due_ns := self.due_ns) is not None and due_ns <= now_ns:
            self._give_up()

    def _give_up(self) -> None:
        """On with the first packet behind the gap."""
        assert self._next is not None
        base = self._next
        self._next = min(self._held, key=lambda sequence: (sequence - base) & 0xFFFF)
        self._release()

    def _release(self) -> None:
        assert self._next is not None
        while (held := self._held.pop(self._next, None)) is not None:
            self._next = (self._next + 1) & 0xFFFF
            self._on_packet(memoryview(held[0]), held[1])


class Datagrams:
    """The client's pair of UDP sockets."""

    def __init__(self, family: socket.AddressFamily, local_host: str, peer_host: str) -> None:
        """Raises OSError when no two neighbouring ports are free."""
        self.rtp, self.rtcp = port_pair(family, local_host)
        self.rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._peer = peer_host
        self._buffer = bytearray(_DATAGRAM_MAX)
        self._view = memoryview(self._buffer)

    @property
    def ports(self) -> tuple[int, int]:
        return self.rtp.getsockname()[1], self.rtcp.getsockname()[1]

    def open_way(self, server_ports: tuple[int, int], rtcp_packet: bytes) -> None:
        """Sends an empty RTP and an RTCP packet, so that a firewall on the way lets the answers through."""
        empty = bytes([0x80, 0]) + bytes(10)
        with contextlib.suppress(OSError):  # nothing depends on their arrival
            self.rtp.sendto(empty, (self._peer, server_ports[0]))
            self.rtcp.sendto(rtcp_packet, (self._peer, server_ports[1]))

    def report(self, packet: bytes, server_port: int) -> None:
        """Sends an RTCP packet, if it goes."""
        with contextlib.suppress(OSError):
            self.rtcp.sendto(packet, (self._peer, server_port))

    def drain(self, on_rtp: OnPacket, on_rtcp: OnPacket) -> None:
        """Reads what has come."""
        for sock, on_packet in ((self.rtp, on_rtp), (self.rtcp, on_rtcp)):
            for _ in range(MAX_PER_TURN):
                try:
                    size, source = sock.recvfrom_into(self._buffer)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # a port of the server's that is closed (ICMP): the next packet may be a good one
                if source[0] == self._peer:
                    on_packet(self._view[:size], time.monotonic_ns())

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()
