"""How packets reach a viewer: inside the RTSP connection, or as UDP datagrams. Knows nothing of what they carry."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from ._messages import format_interleaved

SEND_STALL_S = 20.0
"""A TCP client that takes nothing for so long is gone, or might as well be."""
UDP_BURST_PACKETS = 16
UDP_BURST_GAP_S = 0.001
"""A large key frame is sent in bursts (about 22 KB a millisecond), so that it fits a receiver's default socket
buffer.
"""
_PORT_PAIR_TRIES = 32


class CarrierClosed(Exception):
    """The viewer cannot be reached any more."""


class Carrier(ABC):
    """A way to one viewer."""

    @abstractmethod
    async def send_rtp(self, packets: Sequence[bytes]) -> None:
        """Sends, waiting while the viewer is slow. Raises CarrierClosed."""

    @abstractmethod
    def send_rtcp(self, packet: bytes) -> None:
        """Sends if there is room: reports are not worth waiting for."""

    @abstractmethod
    def transport_header(self) -> str:
        """The `Transport` header that describes this way to the client."""

    @abstractmethod
    def close(self) -> None:
        """Frees what is this carrier's own."""


class TcpCarrier(Carrier):
    """Interleaved in the RTSP connection (RFC 2326 §10.12)."""

    def __init__(self, writer: asyncio.StreamWriter, rtp_channel: int, rtcp_channel: int) -> None:
        self._writer = writer
        self._rtp = rtp_channel
        self._rtcp = rtcp_channel

    @property
    def rtcp_channel(self) -> int:
        return self._rtcp

    async def send_rtp(self, packets: Sequence[bytes]) -> None:
        self._writer.write(format_interleaved(self._rtp, packets))
        try:
            async with asyncio.timeout(SEND_STALL_S):
                await self._writer.drain()
        except TimeoutError as error:
            raise CarrierClosed(f"took nothing for {SEND_STALL_S:.0f} s") from error
        except OSError as error:
            raise CarrierClosed("connection lost") from error

    def send_rtcp(self, packet: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(format_interleaved(self._rtcp, [packet]))

    def transport_header(self) -> str:
        return f"RTP/AVP/TCP;unicast;interleaved={self._rtp}-{self._rtcp}"

    def close(self) -> None:
        """The connection belongs to who serves it."""


class UdpCarrier(Carrier):
    """A pair of sockets, connected to the client: what others send to them is refused by the kernel."""

    def __init__(self, client_ports: tuple[int, int], server_ports: tuple[int, int]) -> None:
        self._client_ports = client_ports
        self._server_ports = server_ports
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(
        cls, local_host: str, peer_host: str, client_ports: tuple[int, int], on_rtcp: Callable[[], None]
    ) -> UdpCarrier:
        """Opens an even port and the next one; `on_rtcp` is called for each packet that the client sends. Raises
        OSError.
        """
        family = socket.AF_INET6 if ":" in local_host else socket.AF_INET
        rtp, rtcp = port_pair(family, local_host)
        carrier = cls(client_ports, (rtp.getsockname()[1], rtcp.getsockname()[1]))
        loop = asyncio.get_running_loop()
        try:
            rtp.connect((peer_host, client_ports[0]))
            rtcp.connect((peer_host, client_ports[1]))
            carrier._rtp, _ = await loop.create_datagram_endpoint(lambda: _Receiver(None), sock=rtp)
            carrier._rtcp, _ = await loop.create_datagram_endpoint(lambda: _Receiver(on_rtcp), sock=rtcp)
        except OSError:
            rtp.close()
            rtcp.close()
            raise
        return carrier

    async def send_rtp(self, packets: Sequence[bytes]) -> None:
        for start in range(0, len(packets), UDP_BURST_PACKETS):
            if start:
                await asyncio.sleep(UDP_BURST_GAP_S)
            if self._rtp is None or self._rtp.is_closing():
                raise CarrierClosed("closed")
            for packet in packets[start : start + UDP_BURST_PACKETS]:
                self._rtp.sendto(packet)

    def send_rtcp(self, packet: bytes) -> None:
        if self._rtcp is not None and not self._rtcp.is_closing():
            self._rtcp.sendto(packet)

    def transport_header(self) -> str:
        client, server = self._client_ports, self._server_ports
        return f"RTP/AVP;unicast;client_port={client[0]}-{client[1]};server_port={server[0]}-{server[1]}"  # fmt: skip

    def close(self) -> None:
        for transport in (self._rtp, self._rtcp):
            if transport is not None:
                transport.close()


class _Receiver(asyncio.DatagramProtocol):
    """Takes receiver reports as a sign of life. A refused port (ICMP) is no reason to stop: RTCP may still be bound
    later.
    """

    def __init__(self, on_packet: Callable[[], None] | None) -> None:
        self._on_packet = on_packet

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self._on_packet is not None:
            self._on_packet()


def port_pair(family: int, host: str) -> tuple[socket.socket, socket.socket]:
    """Bound UDP sockets, non-blocking: an even port and the next one. Raises OSError when there are none."""
    for _ in range(_PORT_PAIR_TRIES):
        first = _bound(family, host, 0)
        port = first.getsockname()[1]
        if port % 2 == 0:
            try:
                return first, _bound(family, host, port + 1)
            except OSError:
                pass  # taken: the next try has another port
        first.close()
    raise OSError("no two neighbouring UDP ports are free")


def _bound(family: int, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made
