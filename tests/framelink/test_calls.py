"""Calls: tensors there and back, several threads, servers that end, clients that misbehave."""

# ruff: noqa: SIM117 (this file runs on Python 3.7, too, which has no parentheses around several contexts)

import gc
import pathlib
import queue
import select
import threading
import time

import numpy as np
import pytest

from framelink import CallClient, CallError, CallServer, CallTimeout, ServerGone, calls_wire, sockets, tensors, wire
from framelink.buffers import BufferPool
from framelink.errors import RingGone
from framelink.ring import Ring
from tests.support.interpreter import Interpreter
from tests.support.shared_memory import eventually


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "c")


def _double(request):
    request.reply({name: tensor * 2 for name, tensor in request.inputs.items()})


def _keeping(kept):
    """A handler that answers nothing but `meet`: who was answered is connected."""
    return lambda request: _double(request) if request.model_id == "meet" else kept.append(request)


def test_a_call_brings_back_the_outputs_in_their_order_as_the_callers_own(path):
    def handler(request):
        assert request.model_id == "model-ü" and request.client == "app"
        assert not request.inputs["image"].flags.writeable
        assert 0 < request.deadline_ns - time.monotonic_ns() <= 10**10
        request.reply({"z": request.inputs["image"].sum(axis=1), "a": np.array([True])})

    with CallServer(path, handler, name="server") as server, CallClient(path, "app") as client:
        given = np.arange(6, dtype=np.float32).reshape(2, 3)
        outputs = client.call("model-ü", {"image": given}, 10)
        assert list(outputs) == ["z", "a"]
        assert np.array_equal(outputs["z"], [3, 12]) and outputs["z"].dtype == np.float32
        outputs["z"][0] = 9
        assert server.stats().calls == 1


def test_requests_may_grow_and_shrink(path):
    with CallServer(path, _double, name="server"), CallClient(path, "app") as client:
        for size in (1, 1000000, 3, 2000000, 0, 10):
            assert client.call("m", {"x": np.ones(size)}, 10)["x"].sum() == 2 * size


def test_many_threads_share_one_client(path):
    requests = queue.Queue()

    def work():
        while True:
            request = requests.get()
            if request is None:
                return
            _double(request)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    with CallServer(path, requests.put, name="server") as server, CallClient(path, "app") as client:
        wrong = []

        def call(number):
            for turn in range(20):
                given = np.full(number + 1, turn)
                if not np.array_equal(client.call("m", {"x": given}, 20)["x"], given * 2):
                    wrong.append(number)

        callers = [threading.Thread(target=call, args=(number,)) for number in range(12)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not wrong
        assert (server.stats().calls, server.stats().failed) == (240, 0)
    for _ in workers:
        requests.put(None)
    for worker in workers:
        worker.join()


@pytest.mark.parametrize("code", calls_wire.CODES)
def test_a_failure_has_a_code_and_a_message(path, code):
    with CallServer(path, lambda request: request.fail(code, "because ü"), name="server"):
        with CallClient(path, "app") as client, pytest.raises(CallError) as caught:
            client.call("m", {"x": np.zeros(1)}, 10)
        assert (caught.value.code, caught.value.message) == (code, "because ü")


def test_a_handler_that_raises_fails_its_call_and_no_other(path):
    def handler(request):
        if request.model_id == "bad":
            raise KeyError("weights")
        _double(request)

    with CallServer(path, handler, name="server"), CallClient(path, "app") as client:
        with pytest.raises(CallError, match="KeyError: 'weights'"):
            client.call("bad", {"x": np.zeros(1)}, 10)
        assert client.call("good", {"x": np.ones(1)}, 10)["x"] == [2]


def test_a_request_that_is_dropped_unanswered_fails(path):
    with CallServer(path, lambda request: None, name="server"), CallClient(path, "app") as client:
        with pytest.raises(CallError, match="dropped"):
            client.call("m", {"x": np.zeros(1)}, 10)


def test_a_request_is_answered_once(path):
    def handler(request):
        assert request.reply({"y": np.ones(1)})
        assert not request.reply({"y": np.zeros(1)})
        assert not request.fail("FAILED", "no")

    with CallServer(path, handler, name="server") as server, CallClient(path, "app") as client:
        assert client.call("m", {"x": np.zeros(1)}, 10)["y"] == [1]
        assert client.call("m", {"x": np.zeros(1)}, 10)["y"] == [1]
        assert server.stats().failed == 0


def test_outputs_that_cannot_be_sent_fail_the_call(path):
    with CallServer(path, lambda request: request.reply({"y": np.array(["text"])}), name="server"):
        with CallClient(path, "app") as client, pytest.raises(CallError, match="cannot be sent"):
            client.call("m", {"x": np.zeros(1)}, 10)


def test_inputs_that_cannot_be_sent_fail_without_a_server(path):
    with CallClient(path, "app") as client, pytest.raises(CallError, match="INVALID_INPUT"):
        client.call("m", {"x": np.array([object()])}, 10)


def test_a_request_larger_than_the_server_takes_is_refused(path, monkeypatch):
    monkeypatch.setattr("framelink.calls_server.MAX_CLIENT_BYTES", 1 << 20)
    with CallServer(path, _double, name="server"), CallClient(path, "app") as client:
        with pytest.raises(CallError, match="TOO_LARGE"):
            client.call("m", {"x": np.zeros(1 << 20)}, 10)
        assert client.call("m", {"x": np.ones(1)}, 10)["x"] == [2]


def test_an_answer_that_does_not_come_in_time_is_a_timeout_and_the_late_one_harms_nobody(path):
    kept = []
    with CallServer(path, _keeping(kept), name="server"), CallClient(path, "app") as client:
        client.call("meet", {"x": np.ones(1)}, 10)
        with pytest.raises(CallTimeout):
            client.call("slow", {"x": np.ones(3)}, 0.1)
        eventually(lambda: kept, "the first call")
        late = kept.pop()
        answer = threading.Thread(target=lambda: client.call("m", {"x": np.ones(2)}, 10))
        answer.start()
        eventually(lambda: kept, "the second call")
        assert np.array_equal(late.inputs["x"], [1, 1, 1]), "its memory is still its own"
        assert late.reply({"y": np.zeros(1)})
        assert kept.pop().reply({"y": np.ones(1)})
        answer.join()


def test_no_server_within_the_time_is_a_timeout(path):
    with CallClient(path, "app") as client, pytest.raises(CallTimeout, match="nobody serves"):
        client.call("m", {"x": np.zeros(1)}, 0.05)


def test_unanswered_calls_of_one_client_are_bounded(path):
    kept = []
    with CallServer(path, _keeping(kept), name="server"), CallClient(path, "app") as client:
        client.call("meet", {"x": np.ones(1)}, 10)

        def one_more():
            """Whether there are so many: on a busy machine one may not even be sent in its time."""
            before = len(kept)
            with pytest.raises(CallTimeout):
                client.call("m", {"x": np.ones(1)}, 0.1)
            return len(kept) > before

        for number in range(1, 9):
            eventually(lambda number=number: one_more() or len(kept) >= number, "a call")
        with pytest.raises(CallError, match="OVERLOADED"):
            client.call("m", {"x": np.ones(1)}, 10)
        assert len(kept) == 8
        for request in kept:
            request.reply({"y": np.ones(1)})
        kept.clear()
        eventually(one_more, "a call")


SERVER = """
import numpy, threading
from framelink import CallServer
asked = threading.Event()
def handler(request):
    asked.set()
    if request.model_id != "never":
        request.reply({"y": numpy.ones(3)})
    else:
        globals().setdefault("kept", []).append(request)
"""


def test_calls_under_way_fail_when_the_server_is_killed_and_the_next_reaches_its_successor(path):
    with Interpreter(SERVER) as first, CallClient(path, "app") as client:
        first.do("server = CallServer(path, handler, name='server')", path=path)
        failures = []

        def call():
            try:
                client.call("never", {"x": np.zeros(1)}, 20)
            except CallError as error:
                failures.append(error)

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        eventually(lambda: first.ask("len(globals().get('kept', []))") == 3, "the calls")
        first.kill()
        for caller in callers:
            caller.join(30)
        assert [type(failure) for failure in failures] == [ServerGone] * 3
        with Interpreter(SERVER) as second:
            starts = threading.Thread(
                target=lambda: second.do("server = CallServer(path, handler, name='server')", path=path)
            )
            starts.start()
            assert client.call("m", {"x": np.zeros(1)}, 20)["y"].sum() == 3
            starts.join()


def test_a_server_notices_that_a_client_was_killed_and_frees_what_it_had(path):
    kept = []
    with CallServer(path, kept.append, name="server") as server:
        with Interpreter("from framelink import CallClient; import numpy") as other:
            other.do("client = CallClient(path, 'app')", path=path)
            other.begin("client.call('m', {'x': numpy.zeros(1000000)}, 30)")
            eventually(lambda: kept, "the call")
            assert not kept[0].abandoned
            other.kill()
            eventually(lambda: kept[0].abandoned, "the noticing")
        assert kept[0].inputs["x"].sum() == 0, "still readable"
        assert not kept[0].reply({"y": np.zeros(1)})
        assert server.stats().clients == 0


class HostileClient:
    """Speaks the protocol by hand."""

    def __init__(self, path):
        self.socket = sockets.connect(path, 5)
        self.socket.send(wire.hello("hostile"))
        self.pool = BufferPool("test", 64, 1 << 30, self._announce, lambda number: None)
        assert wire.parse(self.hear())[0] == calls_wire.READY

    def _announce(self, announced, descriptor):
        sockets.send(self.socket, wire.ring(calls_wire.BUFFER, announced), descriptor)

    def buffer(self, size=1000):
        return self.pool.acquire(size)

    def call(self, call_id, buffer, model="m"):
        self.socket.send(calls_wire.call(calls_wire.Call(call_id, buffer, 0, model)))

    def hear(self):
        sockets.ready(self.socket.fileno(), select.POLLIN, 5)
        return sockets.receive_plain(self.socket)

    def reason(self):
        """Why it was thrown out."""
        while True:
            kind, body = wire.parse(self.hear())
            if kind == wire.GOODBYE:
                return wire.text(body, 512)


@pytest.fixture
def server(path):
    kept = []
    with CallServer(path, kept.append, name="server") as server:
        server.kept = kept
        with CallClient(path, "honest") as honest:
            yield server
            thread = threading.Thread(target=lambda: honest.call("still works", {"x": np.ones(1)}, 10))
            thread.start()
            eventually(lambda: kept and kept[-1].model_id == "still works", "the honest client's call")
            kept[-1].reply({"y": np.ones(1)})
            thread.join()


def test_a_call_with_garbage_in_its_buffer_fails_by_itself(server, path):
    hostile = HostileClient(path)
    buffer = hostile.buffer()
    hostile.pool.payload(buffer)[...] = 255
    hostile.call(1, buffer)
    kind, body = wire.parse(hostile.hear())
    if kind == calls_wire.FAIL:
        assert calls_wire.parse_fail(body)[1] == "INVALID_INPUT"
    assert server.stats().malformed == 0
    hostile.socket.close()


@pytest.mark.parametrize(
    "attack",
    [
        lambda client: client.call(1, 99),
        lambda client: client.socket.send(calls_wire.done(5)),
        lambda client: client.socket.send(calls_wire.retire(5)),
        lambda client: client.socket.send(wire.message(calls_wire.CALL, b"short")),
        lambda client: client.socket.send(wire.ring(calls_wire.BUFFER, wire.Announcement(1, 64, 1, 1))),
        lambda client: [client.buffer(1) for _ in range(9)],
        lambda client: [client.call(1, client.buffer()) for _ in range(2)],
    ],
    ids=["no such buffer", "no such call", "no such buffer to retire", "short", "no descriptor", "buffers", "twice"],
)
def test_a_client_out_of_order_is_disconnected_and_the_others_do_not_notice(server, path, attack):
    hostile = HostileClient(path)
    payload = hostile.pool.payload(hostile.buffer())
    tensors.encode({"x": np.zeros(1)}, payload)
    hostile.pool.release(1)
    attack(hostile)
    assert hostile.reason()
    assert server.stats().malformed == 1
    hostile.socket.close()


def test_unsealed_buffers_are_refused(server, path):
    hostile = HostileClient(path)
    with pathlib.Path("/dev/zero").open("rb") as zero:
        sockets.send(hostile.socket, wire.ring(calls_wire.BUFFER, wire.Announcement(1, 64, 1, 1)), zero.fileno())
    assert "memory" in hostile.reason()
    hostile.socket.close()


def test_a_client_that_floods_and_does_not_read_is_disconnected(server, path):
    hostile = HostileClient(path)
    buffer = hostile.buffer()
    tensors.encode({"x": np.zeros(1)}, hostile.pool.payload(buffer))

    def flood():
        try:
            for _ in range(1000):
                flood.number += 1
                hostile.call(flood.number, buffer)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    flood.number = 0
    eventually(flood, "the disconnection")
    assert server.stats().unread == 1
    assert len(server.kept) == 8, "beyond its share nothing reached the handler"
    hostile.socket.close()


def test_a_client_survives_a_hostile_server(path):
    listener = sockets.listen(path)
    listener.setblocking(True)

    def serve(answer):
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.send(calls_wire.ready(calls_wire.Limits(2, 1 << 20)))
        while wire.parse(connection.recv(1000))[0] != calls_wire.CALL:
            pass
        answer(connection)
        connection.close()

    def unsealed(connection):
        with pathlib.Path("/dev/zero").open("rb") as zero:
            sockets.send(connection, wire.ring(calls_wire.BUFFER, wire.Announcement(1, 64, 1, 1)), zero.fileno())

    def garbage(connection):
        ring = Ring.create("test", 1, 4096)
        ring.payload(0)[...] = 255
        announced = wire.Announcement(1, ring.slot_bytes, 1, 1)
        sockets.send(connection, wire.ring(calls_wire.BUFFER, announced), ring.descriptor)
        connection.send(calls_wire.reply(1, 1))

    answers = [
        lambda connection: connection.send(b"nonsense"),
        lambda connection: connection.send(calls_wire.reply(99, 1)),
        lambda connection: connection.send(calls_wire.reply(1, 1)),
        lambda connection: connection.send(wire.goodbye("no more")),
        unsealed,
        garbage,
    ]
    with CallClient(path, "app") as client:
        for answer in answers:
            server = threading.Thread(target=serve, args=(answer,))
            server.start()
            with pytest.raises(CallError):
                client.call("m", {"x": np.zeros(1)}, 10)
            server.join()
    listener.close()
    gc.collect()


def test_a_client_says_that_it_has_its_answer_just_before_its_next_call(path):
    listener = sockets.listen(path)
    listener.setblocking(True)
    heard = []

    def serve():
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.send(calls_wire.ready(calls_wire.Limits(2, 1 << 20)))
        ring = Ring.create("test", 1, 4096)
        tensors.encode({"y": np.ones(2)}, ring.payload(0))
        sockets.send(
            connection, wire.ring(calls_wire.BUFFER, wire.Announcement(1, ring.slot_bytes, 1, 1)), ring.descriptor
        )
        ring.close_descriptor()
        for _ in range(2):
            kind = 0
            while kind != calls_wire.CALL:
                kind, body = wire.parse(connection.recv(1000))
                heard.append(kind)
            connection.send(calls_wire.reply(calls_wire.parse_call(body).call_id, 1))
        connection.recv(1000)
        connection.close()

    server = threading.Thread(target=serve)
    server.start()
    with CallClient(path, "app") as client:
        for _ in range(2):
            assert client.call("m", {"x": np.zeros(1)}, 10)["y"].tolist() == [1.0, 1.0]
    server.join()
    listener.close()
    assert heard == [calls_wire.BUFFER, calls_wire.CALL, calls_wire.DONE, calls_wire.CALL]


def test_a_client_is_refused_with_the_reason_where_there_are_too_many(path):
    with CallServer(path, _double, name="server", max_clients=1):
        with CallClient(path, "first") as first, CallClient(path, "second") as second:
            first.call("m", {"x": np.zeros(1)}, 10)
            with pytest.raises(CallError, match="already serves 1"):
                second.call("m", {"x": np.zeros(1)}, 10)
    assert issubclass(ServerGone, CallError) and not issubclass(CallError, RingGone)
