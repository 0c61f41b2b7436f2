"""A peer that does not keep to the protocol loses its connection, and nobody else anything."""

import gc
import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framelink import FrameReader, calls_wire, notice, outputs_wire, sockets, wire
from framelink import peers as peers_module
from framelink.errors import RingGone, WireError
from tests.support.shared_memory import NumberCamera, descriptors, eventually

HELLO = wire.hello("hostile")
TEXT = wire.message(wire.HELLO, b"\xff\xfe")
MESSAGES = [
    pytest.param([b"x"], id="too short"),
    pytest.param([b"GET / HTTP/1.1\r\n\r\n"], id="another protocol"),
    pytest.param([wire.PREFIX.pack(wire.MAGIC, 99, wire.HELLO)], id="another version"),
    pytest.param([wire.want(True, 0)], id="no introduction"),
    pytest.param([TEXT], id="a name that is not UTF-8"),
    pytest.param([wire.message(wire.HELLO, b"n" * 5000)], id="a long name"),
    pytest.param([HELLO, HELLO], id="two introductions"),
    pytest.param([HELLO, wire.release(0, 1)], id="a release of what it does not hold"),
    pytest.param([HELLO, wire.release(4000000000, 1)], id="a release of a slot that is not there"),
    pytest.param([HELLO, wire.want(True, 1 << 60)], id="a frame from the future"),
    pytest.param([HELLO, wire.message(wire.WANT, b"12")], id="half a request"),
    pytest.param([HELLO, wire.want(True, 0, [(0, 1)])], id="a request that gives back what it does not hold"),
    pytest.param([HELLO, wire.want(True, 0, [(0, 1)])[:-1]], id="half of what it gives back"),
    pytest.param([HELLO, wire.make_bgr(1, 0, 1, "")], id="a demand for BGR among those for frames"),
    pytest.param([wire.make_bgr(1, 0, 1, ""), wire.want(True, 0)], id="a demand for frames among those for BGR"),
    pytest.param([wire.make_bgr(1, 0, 1, ""), HELLO], id="an introduction after a demand for BGR"),
    pytest.param([wire.make_bgr(1, 0, 1, ""), wire.release(0, 1)], id="a release among demands for BGR"),
    pytest.param([wire.make_bgr(1, 0, 1, "")[:-1]], id="half a demand for BGR"),
    pytest.param([HELLO, wire.message(77)], id="an unknown kind"),
    pytest.param([HELLO, wire.message(wire.NOTICE)], id="a message of the other direction"),
    pytest.param([b"y" * 100000], id="too long"),
]


@pytest.fixture
def camera(tmp_path):
    with NumberCamera(tmp_path / "s") as camera:
        yield camera


def _talk(path, packets):
    """Say all that, and hear until the end. Returns the reason given, if any."""
    connection = sockets.connect(path, 5)
    reason = None
    try:
        for packet in packets:
            connection.send(packet)
    except OSError:
        pass  # It was thrown out before it had finished.
    while True:
        sockets.ready(connection.fileno(), 1, 5)
        try:
            packet = sockets.receive_plain(connection)
        except RingGone:
            break
        kind, body = wire.parse(packet)
        if kind == wire.GOODBYE:
            reason = wire.text(body, 512)
    connection.close()
    return reason


@pytest.mark.parametrize("packets", MESSAGES)
def test_a_message_out_of_order_closes_that_reader_only_and_is_counted(camera, packets):
    with FrameReader(camera.writer.path, "honest") as honest:
        assert _talk(camera.writer.path, packets), "it is told why"
        assert camera.writer.stats().malformed == 1
        camera.publish()
        assert honest.get(30, bgr=False).info.sequence == 1


def test_descriptors_that_nobody_asked_for_are_closed(camera):
    gc.collect()  # What earlier tests have left must not go in the midst of this one.
    before = descriptors()
    for _ in range(20):
        connection = sockets.connect(camera.writer.path, 5)
        sockets.send(connection, HELLO, connection.fileno())
        sockets.ready(connection.fileno(), 1, 5)
        _, ring = sockets.receive(connection)
        os.close(ring)
        connection.close()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    many = b"".join(number.to_bytes(4, "little") for number in [ours.fileno()] * 5)
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
    with pytest.raises(WireError):
        sockets.receive(theirs)
    ours.close()
    theirs.close()
    eventually(lambda: descriptors() == before, "the closing")


def test_who_connects_and_says_nothing_loses_the_place(tmp_path, monkeypatch):
    monkeypatch.setattr(peers_module, "HELLO_TIMEOUT_S", 0.1)
    with NumberCamera(tmp_path / "s", max_readers=1) as camera:
        silent = sockets.connect(camera.writer.path, 5)
        eventually(lambda: camera.writer.stats().malformed == 1, "the closing")
        # Who has something to say gets the time that a busy machine takes for it.
        monkeypatch.setattr(peers_module, "HELLO_TIMEOUT_S", 30.0)
        with FrameReader(camera.writer.path, "honest"):
            pass
        silent.close()


def test_who_does_not_read_its_messages_is_disconnected(camera):
    connection = sockets.connect(camera.writer.path, 5)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.send(HELLO)
    eventually(lambda: camera.reader("hostile") is not None, "the introduction")

    def asks_and_gives_back_and_never_reads():
        sequence = camera.publish()
        try:
            connection.send(wire.want(False, sequence - 1))
            if camera.reader("hostile") and camera.reader("hostile").held:
                for slot, (held, _) in list(camera.writer._readers()[0].held.items()):
                    connection.send(wire.release(slot, held))
        except (OSError, IndexError):
            pass  # It is out.
        return camera.writer.stats().evicted == 1 or camera.reader("hostile") is None

    eventually(asks_and_gives_back_and_never_reads, "the disconnection")
    connection.close()


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_no_bytes_crash_a_parser(body):
    """Each parser understands or raises WireError, nothing else."""
    for parse in (
        wire.parse,
        wire.parse_ring,
        wire.parse_want,
        wire.parse_slot,
        wire.parse_make_bgr,
        wire.parse_made_bgr,
        lambda raw: notice.parse(raw, 8),
        calls_wire.parse_ready,
        calls_wire.parse_call,
        calls_wire.parse_reply,
        calls_wire.parse_fail,
        calls_wire.parse_number,
        outputs_wire.parse_output_hello,
        outputs_wire.parse_put,
    ):
        try:
            parse(body)
        except WireError:
            continue


_texts = st.text(max_size=20)
_parts = st.floats(0, 1, width=32)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(_parts, _parts, _parts, _parts), max_size=20),
    st.lists(st.tuples(_texts, _parts, _parts), max_size=20),
    _texts,
    st.data(),
)
def test_a_picture_survives_the_wire_and_a_damaged_one_is_refused(rects, labels, stream_id, data):
    put = outputs_wire.Put(
        7, stream_id, -5, 9, 640, 480, 0, "camera", 3, 8, 1 << 63, outputs_wire.Annotations(rects, labels)
    )
    packet, left_out = outputs_wire.put(put)
    kind, body = wire.parse(packet)
    assert (kind, left_out, outputs_wire.parse_put(body)) == (outputs_wire.PUT, 0, put)
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(WireError):
        outputs_wire.parse_put(body[:cut])


def test_annotations_beyond_the_limits_are_left_out_and_counted():
    many = outputs_wire.Annotations([(0, 0, 1, 1)] * 2000, [("t" * 1000, 0, 0)] * 500)
    packet, left_out = outputs_wire.put(outputs_wire.Put(1, "s", 0, 0, 8, 8, annotations=many))
    assert len(packet) <= wire.MAX_MESSAGE
    back = outputs_wire.parse_put(wire.parse(packet)[1]).annotations
    assert len(back.rects) == outputs_wire.MAX_RECTS
    assert left_out == 2500 - len(back.rects) - len(back.labels)
    assert len(back.labels[0][0]) == outputs_wire.MAX_LABEL_BYTES


def test_coordinates_that_are_no_parts_are_refused():
    for value in (float("nan"), float("inf"), -0.1, 1.5):
        bad = outputs_wire.Annotations([(0.0, 0.0, value, 1.0)])
        packet, _ = outputs_wire.put(outputs_wire.Put(1, "s", 0, 0, 8, 8, annotations=bad))
        with pytest.raises(WireError, match="coordinate"):
            outputs_wire.parse_put(wire.parse(packet)[1])
