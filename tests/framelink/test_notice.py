"""The notice of a frame, in its slot and as a message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framelink import FrameInfo, PixelFormat, layout, notice, wire
from framelink.errors import WireError

INFO = FrameInfo(5, -1, 2, -3, 64, 48, PixelFormat.NV12, False)


def _slot():
    header = memoryview(bytearray(layout.HEADER_BYTES))
    notice.prepare(header)
    return header


def test_a_notice_is_read_as_it_was_written_and_not_while_it_is_being_written():
    header = _slot()
    assert notice.read(header) is None
    notice.write(header, 7, INFO)
    assert notice.parse(notice.read(header), 8) == (7, INFO)
    notice.mark_bgr(header)
    assert notice.parse(notice.read(header), 8) == (7, INFO._replace(has_bgr=True))
    assert notice.slot_and_sequence(notice.read(header)) == (7, 5)
    notice.forget(header)
    assert notice.read(header) is None


def test_notices_begin_alike_exactly_where_size_format_and_bgr_are_the_same():
    def start(slot, info):
        header = _slot()
        notice.write(header, slot, info)
        return notice.read(header)[: notice.FORM_BYTES]

    assert start(1, INFO) == start(2, INFO._replace(sequence=6, capture_ns=9, publish_ns=9, pts_us=9))
    for change in ({"width": 65}, {"height": 47}, {"format": PixelFormat.I420}, {"has_bgr": True}):
        assert start(1, INFO) != start(1, INFO._replace(**change))


def test_a_notice_is_a_message_like_any_other():
    header = _slot()
    notice.write(header, 7, INFO)
    assert wire.parse(notice.read(header))[0] == wire.NOTICE


@pytest.mark.parametrize(
    ("slot", "change"),
    [(8, {}), (7, {"sequence": 0}), (7, {"width": 0}), (7, {"height": 1 << 20}), (7, {"format": 9})],
)
def test_a_notice_that_cannot_be_is_refused(slot, change):
    header = _slot()
    notice.write(header, slot, INFO._replace(**change))
    with pytest.raises(WireError):
        notice.parse(bytes(header[: notice.BYTES]), 8)


@settings(max_examples=200)
@given(st.binary(min_size=layout.HEADER_BYTES, max_size=layout.HEADER_BYTES))
def test_no_header_crashes_the_reader(raw):
    packet = notice.read(memoryview(bytearray(raw)))
    if packet is not None:
        with pytest.raises(WireError):
            notice.parse(packet, 8)
