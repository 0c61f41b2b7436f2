import av
import numpy as np
import pytest

from edge.ingest.pictures import Pictures, fit, from_planes
from tests.support.clips import pattern


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((640, 480), (640, 480)),
        ((1920, 1080), (1920, 1080)),
        ((1080, 1920), (1080, 1920)),
        ((3840, 2160), (1920, 1080)),
        ((2592, 1944), (1440, 1080)),
        ((7680, 1080), (1920, 270)),
        ((2160, 3840), (606, 1080)),
    ],
)
def test_frames_above_two_megapixels_are_fitted_into_1920_by_1080(
    size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    assert fit(*size) == fitted


def rgb_frame(width: int, height: int, pixel_format: str) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(pattern(3, width, height), format="rgb24").reformat(format=pixel_format)


def planes_for(width: int, height: int) -> tuple[np.ndarray, ...]:
    half = ((height + 1) // 2, (width + 1) // 2)
    return tuple(np.zeros(shape, np.uint8) for shape in ((height, width), half, half))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p", "nv12", "yuv420p10le"])
@pytest.mark.parametrize("size", [(322, 242), (321, 241)])
def test_planes_and_bgr_show_the_picture_that_was_decoded(pixel_format: str, size: tuple[int, int]) -> None:
    width, height = size
    pictures = Pictures()
    picture = pictures.i420(rgb_frame(width, height, pixel_format))
    planes = planes_for(width, height)
    pictures.copy_planes(picture, planes)
    bgr = np.zeros((height, width, 3), np.uint8)
    pictures.copy_bgr(picture, bgr)
    seen = bgr[:, :, ::-1].astype(int)
    assert np.abs(seen - pattern(3, width, height)).mean() < 6
    assert planes[0].std() > 10


def test_bgr_made_late_from_the_planes_is_the_same_picture() -> None:
    pictures = Pictures()
    picture = pictures.i420(rgb_frame(320, 240, "yuv420p"))
    early, late = np.zeros((240, 320, 3), np.uint8), np.zeros((240, 320, 3), np.uint8)
    pictures.copy_bgr(picture, early)
    planes = planes_for(320, 240)
    pictures.copy_planes(picture, planes)
    pictures.copy_bgr(from_planes(planes), late)
    assert np.array_equal(early, late)


def test_a_4k_frame_is_scaled_once_and_keeps_its_picture() -> None:
    pictures = Pictures()
    picture = pictures.i420(rgb_frame(3840, 2160, "yuv420p"))
    assert (picture.width, picture.height, picture.format.name) == (1920, 1080, "yuv420p")
    bgr = np.zeros((1080, 1920, 3), np.uint8)
    pictures.copy_bgr(picture, bgr)
    assert bgr.max() > 200 and bgr[540, 1900].mean() == pytest.approx(120, abs=8)
