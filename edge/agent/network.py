"""The appliance's own network, as DescribeDevice shows it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import psutil

from belvedere.fleet import NetworkConnection, ReportedInterface, ReportedNetworking


def networking() -> ReportedNetworking:
    """The first two interfaces that are not loopback, in the order of their names."""
    stats, addresses = psutil.net_if_stats(), psutil.net_if_addrs()
    names = sorted(name for name in stats if not _is_loopback(addresses.get(name, [])) and name != "lo")
    first, second, *_ = [*(_interface(stats[name].isup, addresses.get(name, [])) for name in names[:2]), None, None]
    return ReportedNetworking(first, second)


def _interface(is_up: bool, addresses: list[Any]) -> ReportedInterface:
    ip = next((_with_prefix(a.address, a.netmask) for a in addresses if a.family == socket.AF_INET), None)
    hardware = next((a.address for a in addresses if a.family == psutil.AF_LINK), None)
    connected = NetworkConnection.CONNECTED if is_up and ip else NetworkConnection.NOT_CONNECTED
    return ReportedInterface(connected, ip, hardware)


def _with_prefix(address: str, netmask: str | None) -> str:
    return str(ipaddress.ip_interface(f"{address}/{netmask}" if netmask else address))


def _is_loopback(addresses: list[Any]) -> bool:
    return any(a.family == socket.AF_INET and ipaddress.ip_address(a.address).is_loopback for a in addresses)
