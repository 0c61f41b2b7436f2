"""The loop stays awake for some microseconds after an answer, where the next request has been coming that soon.

To fall asleep and be woken by another core costs more than a remembered answer does, and what was in the caches is gone by then:
a client that asks in a row gets its answers faster if the loop looks for the next request instead (the kernel's haltpoll and
mutexes that spin are there for the same reason). It looks by turning: nothing is blocked, every turn polls all sockets and runs
all that is ready.

It has to have paid before: EARNED_AFTER requests, each within the window after the answer before it. The first window in which
nobody came ends it, so whoever asks seldom costs nothing and an idle server sleeps. Knows the loop and the clock; no request.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Collection

EARNED_AFTER = 4
"""Requests in a row: a page that asks for some things at once has not earned it."""
WINDOW_MAX_US = 1000
"""What a sleep costs is a tenth of that: to wait longer without one never pays."""
NEVER_S = -1.0
"""A window in which no request can come."""


class Awake:
    """Of one port, for all who ask there."""

    __slots__ = ("_answered", "_handle", "_in_a_row", "_only_core", "_until", "_window_s", "turns")

    def __init__(self, window_us: int, cores: Collection[int] | None = None) -> None:
        """`window_us`: how long after an answer, WINDOW_MAX_US at most; 0: never. `cores`: those that this process may use, asked
        of the kernel where None."""
        mine = os.sched_getaffinity(0) if cores is None else cores
        self._only_core = next(iter(mine)) if len(mine) == 1 else None
        self._window_s = min(window_us, WINDOW_MAX_US) / 1e6 if window_us > 0 else NEVER_S
        self._answered = self._until = 0.0
        self._in_a_row = 0
        self._handle: asyncio.Handle | None = None
        self.turns = 0
        """Of the loop, that were for nothing but looking."""

    @property
    def looking(self) -> bool:
        """Whether the loop does not sleep for the moment."""
        return self._handle is not None

    def asked(self, client: asyncio.BaseTransport) -> None:
        """A request has come."""
        if time.monotonic() - self._answered > self._window_s:
            self._in_a_row = 0
        elif self._in_a_row < EARNED_AFTER:
            self._in_a_row += 1
            if self._in_a_row == EARNED_AFTER and self._only_core is not None and _core(client) == self._only_core:
                # It needs this very core to ask: measured, 0.6 times the answers.
                self._in_a_row = 0

    def answered(self) -> None:
        """An answer has gone out."""
        self._answered = now = time.monotonic()
        if self._in_a_row == EARNED_AFTER:
            self._until = now + self._window_s
            if self._handle is None:
                self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        """From now on the loop sleeps as any other."""
        self._window_s, self._in_a_row = NEVER_S, 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        if time.monotonic() < self._until:
            self.turns += 1
            self._handle = asyncio.get_running_loop().call_soon(self._turn)
        else:
            self._handle = None


def _core(client: asyncio.BaseTransport) -> int:
    """On which the client's last packet came in: over the loopback the core that the client ran on."""
    found: int = client.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_INCOMING_CPU)
    return found
