"""B2's peer iceoryx2, run by its own interpreter: publish and notify in one process, wait and receive in another.

    python iceoryx2_hop.py SERVER_CORE CLIENT_CORE ITEMS PAUSE_S     # "ready"; for each line in, a median in µs out

A sample of 8 bytes: iceoryx2 hands over a reference, as we do. Imports nothing of ours.
"""

import ctypes
import os
import socket
import statistics
import sys
import time
from typing import Any

import iceoryx2 as iox

NAME = f"belvedere/bench/{os.getpid()}"
WAIT_S = 10.0


def services() -> tuple[Any, Any, Any]:
    node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)
    events = node.service_builder(iox.ServiceName.new(NAME)).event().open_or_create()
    items = node.service_builder(iox.ServiceName.new(NAME)).publish_subscribe(ctypes.c_uint64).open_or_create()
    return node, events, items


def receive(far: socket.socket) -> None:
    _node, events, items = services()
    listener, subscriber = events.listener_builder().create(), items.subscriber_builder().create()
    far.send(b"ready")
    far.setblocking(False)
    while True:
        listener.timed_wait(iox.Duration.from_millis(100))
        sample = subscriber.receive()
        if sample is not None:
            assert sample.payload().contents.value
            far.send(time.monotonic_ns().to_bytes(8, "little"))
            sample.delete()
        try:
            if not far.recv(1):
                return
        except BlockingIOError:
            continue


def main() -> None:
    server, client, count, pause = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    iox.set_log_level(iox.LogLevel.Error)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        near.close()
        os.sched_setaffinity(0, {client})
        receive(far)
        os._exit(0)
    far.close()
    os.sched_setaffinity(0, {server})
    near.settimeout(WAIT_S)
    if near.recv(64) != b"ready":
        sys.exit("the receiver did not get ready")
    _node, events, items = services()
    notifier, publisher = events.notifier_builder().create(), items.publisher_builder().create()
    time.sleep(0.2)  # discovery is by looking; there is no event for it
    print("ready", flush=True)
    for _ in sys.stdin:
        times = []
        for number in range(1, count + 1):
            sample = publisher.loan_uninit().write_payload(ctypes.c_uint64(number))
            time.sleep(pause)
            started = time.monotonic_ns()
            sample.send()
            notifier.notify()
            times.append((int.from_bytes(near.recv(64), "little") - started) / 1000)
        print(statistics.median(times), flush=True)


main()
