"""What a player sees: read with PyAV (libavformat), looked at pixel by pixel."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from edge.display.wanted import Wanted
from tests.edge.display.conftest import CAMERA, INSTANCE, Shown, output, running
from tests.support.showing import Showing
from tests.support.waiting import until

Picture = npt.NDArray[np.uint8]
OPTIONS = {"rtsp_transport": "tcp", "analyzeduration": "200000"}


PLACARD = (720, 1280)
"""Height and width of what is shown where the application's first picture takes its time."""


def watch(url: str, pictures: int, transport: str = "tcp", until: threading.Event | None = None) -> list[Picture]:
    """The first pictures of a stream, without placards: RGB, height × width × 3. `until`: it looks on until that is set."""
    with av.open(url, options=OPTIONS | {"rtsp_transport": transport}, timeout=30) as container:
        found = []
        for frame in container.decode(video=0):
            if (frame.height, frame.width) != PLACARD:
                found.append(frame.to_ndarray(format="rgb24"))
            if len(found) >= pictures and (until is None or until.is_set()):
                break
        return found[:pictures]


def red(picture: Picture) -> npt.NDArray[np.bool_]:
    r, g, b = (picture[:, :, channel].astype(int) for channel in range(3))
    return np.asarray((r > 150) & (g < 100) & (b < 100))


def box_of(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is set, in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


async def test_a_box_is_drawn_where_the_application_put_it(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE, rects=[(0.25, 0.25, 0.75, 0.5)]):
        pictures = await asyncio.to_thread(watch, shown.rtsp(), 8)
    assert pictures[-1].shape == (360, 640, 3)
    assert np.allclose(box_of(red(pictures[-1])), (160, 90, 481, 181), atol=2)
    assert abs(int(pictures[-1][300, 300, 1]) - 130) < 12, "the camera's grey is still there"


async def test_a_label_is_white_on_dark_and_stays_inside_the_picture(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE, labels=[("people: 3", 0.97, 0.99)]):
        picture = (await asyncio.to_thread(watch, shown.rtsp(), 6))[-1]
    corner = picture[330:, 540:, 1]
    assert corner.max() > 200
    assert corner.min() < 70
    assert picture[:300, :500].max() < 150, "nothing was drawn elsewhere"


@pytest.mark.parametrize("own_pixels", [False, True], ids=["camera frames", "own pixels"])
async def test_odd_sizes_are_cropped_to_even_ones(shown: Shown, own_pixels: bool) -> None:
    await shown.apply(output())
    rects = [(0.0, 0.0, 1.0, 1.0)]
    with Showing(shown.paths, CAMERA, INSTANCE, 323, 241, own_pixels=own_pixels, rects=rects):
        await until(lambda: shown.row()["frames_received"] > 0)
        picture = (await asyncio.to_thread(watch, shown.rtsp(), 5, "udp"))[-1]
    assert picture.shape == (240, 322, 3)
    assert np.allclose(box_of(red(picture)), (0, 0, 321, 239), atol=1)


async def test_nobody_looks_and_nothing_is_encoded(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE) as app:
        await until(lambda: shown.row()["frames_received"] >= 20)
        row = shown.row()
        assert (row["encoder_starts"], row["frames_displayed"], row["viewers"]) == (0, 0, 0)
        assert row["first_output_at_ms"] > 0
        assert row["latency_display_ms"]["count"] == 0
        await until(lambda: app.in_flight == 0)  # pictures go back at once
        await asyncio.to_thread(watch, shown.rtsp(), 5)
        await until(lambda: not shown.display._videos[INSTANCE].encoding)
        row = shown.row()
        assert row["encoder_starts"] == 1
        assert row["frames_displayed"] >= 5
        assert 0 < row["latency_display_ms"]["p50"] <= row["latency_display_ms"]["p99"] < 60_000
        assert row["viewers"] == 0


async def test_two_viewers_share_one_encoder(shown: Shown) -> None:
    await shown.apply(output())
    with Showing(shown.paths, CAMERA, INSTANCE):
        await until(lambda: shown.row()["frames_received"] > 0)
        both_look = threading.Event()
        watching = asyncio.gather(
            *(asyncio.to_thread(watch, shown.rtsp(), 25, until=both_look) for _ in range(2)), return_exceptions=True
        )
        try:
            await until(lambda: shown.row()["viewers"] == 2)
        finally:
            both_look.set()
        assert [len(pictures) for pictures in await watching if isinstance(pictures, list)] == [25, 25]
        assert shown.row()["encoder_starts"] == 1


async def test_a_wrong_password_sees_nothing(shown: Shown) -> None:
    await shown.apply(output())
    with pytest.raises(av.HTTPUnauthorizedError):
        await asyncio.to_thread(watch, shown.rtsp(password="wrong"), 1)
    assert shown.row()["encoder_starts"] == 0


async def test_without_a_viewer_key_nobody_looks(shown: Shown) -> None:
    await shown.display.apply(Wanted.from_json({"outputs": [output()], "viewer_key": None}))
    with pytest.raises(av.HTTPUnauthorizedError):
        await asyncio.to_thread(watch, shown.rtsp(), 1)


async def test_a_camera_that_stops_is_never_a_frozen_picture(tmp_path: Path) -> None:
    async with running(tmp_path, stale_s=1.0) as shown:
        await shown.apply(output())
        with Showing(shown.paths, CAMERA, INSTANCE, fps=10) as app:
            app.rects = [(0.1, 0.1, 0.2, 0.9)]
            await until(lambda: shown.row()["frames_received"] > 2)

            def see() -> tuple[Picture, Picture]:
                with av.open(shown.rtsp(), options=OPTIONS, timeout=30) as container:
                    live = None
                    for frame in container.decode(video=0):
                        picture = frame.to_ndarray(format="rgb24")
                        if live is None and red(picture).any():
                            live = picture
                            app.paused.set()
                        elif live is not None and picture.mean() < live.mean() / 2:
                            return live, picture
                raise AssertionError("the stream ended")

            async with asyncio.timeout(60):
                live, stale = await asyncio.to_thread(see)
        assert not red(stale).any(), "no box on a picture that is over"
        assert stale[150:210].max() > 200, "a text says why"
        assert live.mean() > 100


async def test_before_the_first_picture_a_placard_is_shown_then_the_picture_in_its_size(shown: Shown) -> None:
    await shown.apply(output())
    begun = threading.Event()

    def see() -> list[tuple[int, int]]:
        sizes: list[tuple[int, int]] = []
        with av.open(shown.rtsp(), options=OPTIONS, timeout=30) as container:
            for frame in container.decode(video=0):
                begun.set()
                if (frame.width, frame.height) not in sizes:
                    sizes.append((frame.width, frame.height))
                if len(sizes) == 2:
                    break
        return sizes

    seeing = asyncio.create_task(asyncio.to_thread(see))
    # Not before: who is still on its way when the first picture comes never sees the placard.
    await until(begun.is_set)
    with Showing(shown.paths, CAMERA, INSTANCE):
        async with asyncio.timeout(60):
            assert await seeing == [(1280, 720), (640, 360)]
