"""The composed picture, without encoder or sockets."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.display.composer import WAITING_SIZE, Composer, Tile, fit, grid, layout, planes_of
from edge.display.draw import LINE_PX, RED, draw_label, draw_rect
from edge.display.pictures import PictureTooSmall, copy_picture
from framelink import PixelFormat


def grey(width: int = 320, height: int = 240, luma: int = 128) -> av.VideoFrame:
    y = np.full((height, width), luma, np.uint8)
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    return copy_picture((y, chroma, chroma), PixelFormat.I420)


def composer(**streams: av.VideoFrame) -> Composer:
    made = Composer("counter", stale_s=3.0)
    for name, picture in streams.items():
        made.update(name, picture, (), (), 100.0)
    return made


def test_one_stream_is_the_whole_picture_in_its_own_size() -> None:
    made = composer(front=grey(322, 242))
    frame = made.compose(100.1)
    assert (frame.width, frame.height) == (322, 242)
    assert (planes_of(frame)[0] == 128).all()


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 1)), (2, (2, 1)), (3, (2, 2)), (5, (3, 2)), (9, (3, 3))])
def test_several_streams_share_a_grid(count: int, expected: tuple[int, int]) -> None:
    assert grid(count) == expected
    tiles = layout(count, 1280, 720)
    assert len({(tile.x, tile.y) for tile in tiles}) == count
    assert all(tile.x + tile.width <= 1280 and tile.y + tile.height <= 720 for tile in tiles)


def test_each_stream_is_in_its_own_tile_with_its_own_boxes() -> None:
    made = Composer("counter", stale_s=3.0)
    made.update("left", grey(luma=60), (), (), 100.0)
    made.update("right", grey(luma=200), ((0.5, 0.5, 0.75, 0.75),), (), 100.0)
    assert made.size == (640, 240)
    y, _, v = planes_of(made.compose(100.1))
    assert y[10, 10] == 60
    assert y[10, 630] == 200
    assert (v[:, :160] == 128).all(), "no box on the left"
    assert y[120, 320 + 160] == RED[0]


def test_pictures_keep_their_proportions_in_a_tile() -> None:
    assert fit(Tile(0, 0, 640, 480), 320, 480) == Tile(160, 0, 320, 480)
    assert fit(Tile(0, 0, 640, 480), 640, 240) == Tile(0, 120, 640, 240)


def test_a_grid_never_grows_beyond_full_hd() -> None:
    made = composer(**{f"camera_{index}": grey(1920, 1080) for index in range(4)})
    assert made.size == (1920, 1080)
    assert made.compose(100.1).width == 1920


def test_only_the_silent_stream_is_darkened() -> None:
    made = composer(silent=grey(), lively=grey())
    made.update("lively", grey(), (), (), 110.0)
    assert made.stale(110.0)
    y = planes_of(made.compose(110.0))[0]
    assert np.median(y[:, :320]) < 60
    assert y[100:140, :320].max() > 200, "the placard's text"
    assert np.median(y[:, 320:]) == 128


def test_before_any_picture_it_says_what_it_waits_for() -> None:
    made = composer()
    frame = made.compose(1.0)
    assert (frame.width, frame.height) == WAITING_SIZE
    assert planes_of(frame)[0].max() > 200


def test_a_size_is_known_before_a_picture_was_kept() -> None:
    made = composer()
    made.note("front", 641, 361, 99.0)
    assert made.size == (640, 360)
    assert np.median(planes_of(made.compose(99.5))[0]) == 16, "black, and no old picture"


def test_more_streams_than_fit_are_counted_and_left_out() -> None:
    made = composer(**{f"camera_{index}": grey(64, 64) for index in range(20)})
    assert made.refused == 4
    made.compose(100.0)


@pytest.mark.parametrize("pixel_format", [PixelFormat.I420, PixelFormat.NV12, PixelFormat.BGR24])
def test_every_format_becomes_the_same_picture_of_even_size(pixel_format: PixelFormat) -> None:
    y, half = np.full((241, 321), 81, np.uint8), (121, 161)
    u, v = np.full(half, 90, np.uint8), np.full(half, 240, np.uint8)
    planes = {
        PixelFormat.I420: (y, u, v),
        PixelFormat.NV12: (y, np.stack([u, v], axis=-1)),
        PixelFormat.BGR24: (np.full((241, 321, 3), (0, 0, 255), np.uint8),),
    }[pixel_format]
    frame = copy_picture(planes, pixel_format)
    assert (frame.width, frame.height) == (320, 240)
    for plane, value in zip(planes_of(frame), RED, strict=True):
        assert np.abs(plane.astype(int) - value).max() <= 2


def test_a_picture_too_small_to_encode_is_refused() -> None:
    with pytest.raises(PictureTooSmall, match="30x40"):
        copy_picture((np.zeros((40, 31, 3), np.uint8),), PixelFormat.BGR24)


coordinate = st.floats(allow_nan=True, allow_infinity=True)


@example((1e308, 0.0, -1e308, 1.0), "\x85 \ud800", 1e308, -1e308)
@given(st.tuples(coordinate, coordinate, coordinate, coordinate), st.text(max_size=300), coordinate, coordinate)
def test_nothing_that_an_application_sends_can_break_a_picture(
    rect: tuple[float, float, float, float], text: str, x: float, y: float
) -> None:
    planes = planes_of(grey(64, 48))
    draw_rect(planes, rect)
    draw_label(planes, text, x, y)


@given(*[st.floats(0, 1)] * 4)
def test_a_box_touches_its_lines_only(left: float, top: float, right: float, bottom: float) -> None:
    planes = planes_of(grey(64, 48))
    draw_rect(planes, (left, top, right, bottom))
    (x0, x1), (y0, y1) = sorted((left * 64, right * 64)), sorted((top * 48, bottom * 48))
    drawn = np.argwhere(planes[0] != 128)
    assert drawn[:, 0].min() >= min(y0 - 2, 48 - LINE_PX - 1)
    assert drawn[:, 0].max() <= y1 + 3
    assert drawn[:, 1].min() >= min(x0 - 2, 64 - LINE_PX - 1)
    assert drawn[:, 1].max() <= x1 + 3
