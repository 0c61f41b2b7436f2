"""Pictures in slots: sizes, views, headers, conversion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framelink import LayoutError, PixelFormat, layout, slot_bytes_for

sides = st.integers(1, 70)
formats = st.sampled_from([PixelFormat.I420, PixelFormat.NV12, PixelFormat.BGR24])


@settings(max_examples=100)
@given(sides, sides, formats)
def test_planes_and_bgr_fit_the_slot_and_do_not_overlap(width, height, format):
    payload = np.zeros(slot_bytes_for(width, height), np.uint8)
    views = list(layout.planes_of(payload, width, height, format))
    if format != PixelFormat.BGR24:
        views.append(layout.bgr_of(payload, width, height, format))
    for number, view in enumerate(views):
        view[...] = number + 1
    for number, view in enumerate(views):
        assert np.all(view == number + 1)


def test_behind_each_plane_there_is_room_for_what_a_decoder_writes_beyond_it():
    payload = np.zeros(slot_bytes_for(1920, 1080), np.uint8)
    planes = [*layout.planes_of(payload, 1920, 1080, PixelFormat.I420), layout.bgr_of(payload, 1920, 1080, 1)]
    starts = [plane.__array_interface__["data"][0] for plane in planes]
    gaps = [after - start - plane.size for plane, start, after in zip(planes, starts, starts[1:], strict=False)]
    assert gaps[0] >= (8 + 2) * 1920 and min(gaps[1:]) >= (4 + 2) * 960


def test_a_slot_that_is_too_small_is_refused():
    with pytest.raises(LayoutError, match="slot_bytes_for"):
        layout.bgr_of(np.zeros(64 * 48 * 2, np.uint8), 64, 48, PixelFormat.I420)
    with pytest.raises(LayoutError):
        layout.planes_of(np.zeros(10, np.uint8), 64, 48, PixelFormat.I420)
    with pytest.raises(LayoutError):
        slot_bytes_for(100000, 10)


@pytest.mark.parametrize(
    ("yuv", "bgr"),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((81, 90, 240), (0, 0, 254)),
        ((145, 54, 34), (1, 255, 0)),
        ((41, 240, 110), (255, 0, 0)),
    ],
)
@pytest.mark.parametrize("format", [PixelFormat.I420, PixelFormat.NV12])
def test_planes_become_the_colours_of_bt601(yuv, bgr, format):
    shapes = layout.plane_shapes(7, 5, format)
    planes = [np.empty(shape, np.uint8) for shape in shapes]
    planes[0][...] = yuv[0]
    if format == PixelFormat.I420:
        planes[1][...], planes[2][...] = yuv[1], yuv[2]
    else:
        planes[1][:, :, 0], planes[1][:, :, 1] = yuv[1], yuv[2]
    picture = layout.bgr_from_planes(tuple(planes), format)
    assert picture.shape == (5, 7, 3)
    assert np.abs(picture.astype(int) - np.array(bgr)).max() <= 1
