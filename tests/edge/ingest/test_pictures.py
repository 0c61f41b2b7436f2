import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, VideoReformatter

from edge.ingest import libyuv
from edge.ingest.pictures import Pictures, fit
from edge.ingest.swscale import Converter, Route
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


@pytest.mark.parametrize("colorspace", [1, 2, 7])
@pytest.mark.parametrize("size", [(320, 240), (322, 242), (321, 241)])
def test_bgr_made_late_from_the_planes_is_the_same_picture(size: tuple[int, int], colorspace: int) -> None:
    width, height = size
    pictures = Pictures()
    picture = pictures.i420(rgb_frame(width, height, "yuv420p"))
    picture.colorspace = colorspace
    early, late = np.zeros((height, width, 3), np.uint8), np.zeros((height, width, 3), np.uint8)
    pictures.copy_bgr(picture, early)
    planes = planes_for(width, height)
    pictures.copy_planes(picture, planes)
    pictures.planes_to_bgr(planes, colorspace, late)
    assert np.array_equal(early, late)


def test_a_4k_frame_is_scaled_once_and_keeps_its_picture() -> None:
    pictures = Pictures()
    picture = pictures.i420(rgb_frame(3840, 2160, "yuv420p"))
    assert (picture.width, picture.height, picture.format.name) == (1920, 1080, "yuv420p")
    bgr = np.zeros((1080, 1920, 3), np.uint8)
    pictures.copy_bgr(picture, bgr)
    assert bgr.max() > 200 and bgr[540, 1900].mean() == pytest.approx(120, abs=8)


def ramp(pixel_format: str, width: int = 256, height: int = 64) -> av.VideoFrame:
    """Grey from Y = 0 to 255, left to right."""
    luma = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    grey = np.full(width * height // 2, 128, np.uint8)
    planes = np.concatenate([luma.ravel(), grey]).reshape(height * 3 // 2, width)
    return av.VideoFrame.from_ndarray(planes, format=pixel_format)


@pytest.mark.parametrize("colorspace", [1, 2, 5, 6, 9])
@pytest.mark.parametrize(("pixel_format", "full"), [("yuv420p", False), ("yuv420p", True), ("yuvj420p", True)])
def test_bgr_straight_into_the_slot_has_the_same_bits_as_pyavs(pixel_format: str, full: bool, colorspace: int) -> None:
    frame = av.VideoFrame.from_ndarray(pattern(3, 640, 360), format="rgb24").reformat(format="yuv420p")
    if pixel_format == "yuvj420p":
        frame = frame.reformat(format="yuvj420p")
    frame.colorspace = colorspace
    if full:
        frame.color_range = ColorRange.JPEG
    converter = Converter.make(frame)
    assert converter is not None and converter.fits(frame)
    target = np.zeros((360, 640, 3), np.uint8)
    converter.follow(Route.between(frame, target), frame.height)
    assert np.array_equal(target, VideoReformatter().reformat(frame, format="bgr24").to_ndarray())
    assert not converter.fits(ramp(pixel_format))


def exact(frame: av.VideoFrame, weights: tuple[float, float], full: bool) -> np.ndarray:
    """BGR by the definition (ITU-T H.273 §8.3), chroma of each two by two pixels taken for all four. `weights`: KR, KB."""
    width, height = frame.width, frame.height
    luma, *chroma = (
        np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size).astype(float) for plane in frame.planes
    )
    y = luma[:height, :width] if full else (luma[:height, :width] - 16) * 255 / 219
    cb, cr = ((plane.repeat(2, 0).repeat(2, 1)[:height, :width] - 128) / (1 if full else 224 / 255) for plane in chroma)
    kr, kb = weights
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.stack([blue, green, red], axis=2).clip(0, 255)


@pytest.mark.debian
@pytest.mark.skipif(not libyuv.available(), reason="Debian package libyuv0")
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("colorspace", "weights"),
    [(1, (0.2126, 0.0722)), (2, (0.299, 0.114)), (5, (0.299, 0.114)), (6, (0.299, 0.114)), (9, (0.2627, 0.0593))],
)
def test_libyuv_makes_the_colours_of_each_colour_space(
    colorspace: int, weights: tuple[float, float], full: bool
) -> None:
    frame = av.VideoFrame.from_ndarray(pattern(3, 326, 181), format="rgb24").reformat(format="yuv420p")
    frame.colorspace = colorspace
    frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
    converter = libyuv.YuvConverter.make(frame)
    assert converter is not None and converter.fits(frame) and not converter.fits(ramp("yuv420p"))
    memory = np.full(181 * 326 * 3 + 64, 77, np.uint8)
    target = memory[:-64].reshape(181, 326, 3)
    converter.follow(Route.between(frame, target), frame.height)
    assert np.abs(target - exact(frame, weights, full)).max() < 2.5
    assert set(memory[-64:]) == {77}, "it writes beyond the picture"


def test_colours_that_libyuv_does_not_know_are_left_to_libswscale() -> None:
    frame = rgb_frame(320, 240, "yuv420p")
    frame.colorspace = 7  # SMPTE 240M
    assert libyuv.YuvConverter.make(frame) is None and Converter.make(frame) is not None
    assert libyuv.YuvConverter.make(rgb_frame(320, 240, "nv12")) is None


def test_widths_that_vectors_would_write_beyond_are_left_to_pyav() -> None:
    assert Converter.make(rgb_frame(322, 242, "yuv420p")) is None
    assert Converter.make(rgb_frame(320, 240, "nv12")) is None


@pytest.mark.parametrize("late", [False, True])
def test_full_range_cameras_keep_their_greys_in_bgr_and_in_planes(late: bool) -> None:
    pictures = Pictures()
    frame = ramp("yuvj420p")
    planes = planes_for(256, 64)
    pictures.copy_planes(pictures.i420(frame), planes)
    # Y 0..255 of the camera is 16..235 for everybody who reads the planes.
    assert (planes[0].min(), planes[0].max()) == (16, 235)
    bgr = np.zeros((64, 256, 3), np.uint8)
    if late:
        pictures.planes_to_bgr(planes, frame.colorspace, bgr)
    else:
        pictures.copy_bgr(frame, bgr)
    wanted = np.linspace(0, 255, 256).astype(np.uint8)
    assert np.abs(bgr[10, :, 0].astype(int) - wanted).max() <= 2


def test_a_full_range_picture_that_is_scaled_is_of_limited_range_too() -> None:
    picture = Pictures().i420(ramp("yuvj420p", 3840, 2160))
    assert (picture.width, picture.height) == (1920, 1080)
    luma = picture.to_ndarray()[:1080]
    assert (luma.min(), luma.max()) == (16, 235)
