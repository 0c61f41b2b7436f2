"""The picture of one output: its streams side by side, each with its boxes and labels, none ever frozen without saying
so.

One stream fills the picture in its own size; several share a grid in the order in which they first appeared. It is
handed time and pictures and gives back frames; it knows no encoder, no viewers and no sockets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import av
import numpy as np

from .draw import MAX_LABELS, MAX_RECTS, Planes, draw_label, draw_placard, draw_rect, fill_black

WAITING_SIZE = (1280, 720)
"""Of the picture before the first frame has told its own."""
GRID_MAX = (1920, 1080)
MIN_SIDE = 32
MAX_STREAMS = 16
"""A grid of 4 × 4; what comes beyond is counted and not shown."""

Rect = tuple[float, float, float, float]
Label = tuple[str, float, float]


@dataclass(frozen=True)
class Tile:
    """Where a stream lies in the picture: pixels, all even."""

    x: int
    y: int
    width: int
    height: int


@dataclass
class _Stream:
    width: int
    height: int
    updated_s: float
    picture: av.VideoFrame | None = None
    rects: tuple[Rect, ...] = ()
    labels: tuple[Label, ...] = ()
    scaled: dict[tuple[int, int], av.VideoFrame] = field(default_factory=dict)


class Composer:
    """Keeps the newest picture of each stream and makes frames for the encoder from them."""

    def __init__(self, title: str, stale_s: float) -> None:
        self._title = title
        self._stale_s = stale_s
        self._streams: dict[str, _Stream] = {}
        self._reasons: Mapping[str, str] = {}
        self.refused = 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames to come; both even."""
        if not self._streams:
            return WAITING_SIZE
        streams = list(self._streams.values())
        if len(streams) == 1:
            return streams[0].width, streams[0].height
        columns, rows = grid(len(streams))
        width, height = max(s.width for s in streams) * columns, max(s.height for s in streams) * rows
        scale = min(1.0, GRID_MAX[0] / width, GRID_MAX[1] / height)
        return _even_down(width * scale), _even_down(height * scale)

    @property
    def streams(self) -> int:
        return len(self._streams)

    def update(
        self, stream_id: str, picture: av.VideoFrame, rects: tuple[Rect, ...], labels: tuple[Label, ...], now_s: float
    ) -> None:
        """The stream's newest picture (yuv420p, of even size); the composer keeps it and never changes it."""
        if self._admits(stream_id):
            self._streams[stream_id] = _Stream(
                picture.width, picture.height, now_s, picture, rects[:MAX_RECTS], labels[:MAX_LABELS]
            )

    def note(self, stream_id: str, width: int, height: int, seen_s: float) -> None:
        """The stream had a picture of this size at `seen_s`, which nobody kept. Older pictures of it are let go."""
        if self._admits(stream_id):
            self._streams[stream_id] = _Stream(width // 2 * 2, height // 2 * 2, seen_s)

    def explain(self, reasons: Mapping[str, str]) -> None:
        """Why each stream would show nothing at this moment, by its id; for placards. From any thread."""
        self._reasons = dict(reasons)

    def _reason(self, name: str) -> str:
        # A second node's streams have its name before their own.
        return self._reasons.get(name) or self._reasons.get(name.rpartition("/")[2], "")

    def _admits(self, stream_id: str) -> bool:
        if stream_id in self._streams or len(self._streams) < MAX_STREAMS:
            return True
        self.refused += 1
        return False

    def stale(self, now_s: float) -> bool:
        """Whether some stream must say that it has no new picture."""
        return not self._streams or any(now_s - s.updated_s >= self._stale_s for s in self._streams.values())

    def compose(self, now_s: float) -> av.VideoFrame:
        """A new frame (yuv420p) of `size`, with everything drawn."""
        width, height = self.size
        frame = av.VideoFrame(width, height, "yuv420p")
        canvas = planes_of(frame)
        if not self._streams:
            fill_black(canvas)
            why = "; ".join(dict.fromkeys(self._reasons.values()))
            draw_placard(canvas, f"{self._title}: waiting for the first picture", why)
            return frame
        tiles = layout(len(self._streams), width, height)
        if len(tiles) > 1:
            fill_black(canvas)
        for (name, stream), cell in zip(self._streams.items(), tiles, strict=True):
            tile = fit(cell, stream.width, stream.height)
            region = crop(canvas, tile)
            if stream.picture is None:
                fill_black(region)
            else:
                for target, source in zip(region, planes_of(_scaled(stream, stream.picture, tile)), strict=True):
                    target[:] = source
            silent_s = now_s - stream.updated_s
            if silent_s >= self._stale_s:
                draw_placard(region, f"{name}: no picture for {int(silent_s)} s", self._reason(name))
                continue
            for rect in stream.rects:
                draw_rect(region, rect)
            for text, x, y in stream.labels:
                draw_label(region, text, x, y)
        return frame


def _scaled(stream: _Stream, picture: av.VideoFrame, tile: Tile) -> av.VideoFrame:
    """The stream's picture in its tile's size; made once per picture."""
    size = (tile.width, tile.height)
    if size == (picture.width, picture.height):
        return picture
    if size not in stream.scaled:
        stream.scaled = {size: picture.reformat(*size, format="yuv420p")}
    return stream.scaled[size]


def grid(count: int) -> tuple[int, int]:
    """Columns and rows for so many streams: as square as can be, wider rather than higher."""
    columns = math.ceil(math.sqrt(count))
    return columns, math.ceil(count / columns)


def layout(count: int, width: int, height: int) -> list[Tile]:
    """The grid's cells, row by row."""
    columns, rows = grid(count)
    cell_width, cell_height = _even_down(width / columns), _even_down(height / rows)
    return [
        Tile(index % columns * cell_width, index // columns * cell_height, cell_width, cell_height)
        for index in range(count)
    ]


def fit(cell: Tile, width: int, height: int) -> Tile:
    """The largest tile with the picture's proportions in the middle of a cell."""
    scale = min(cell.width / width, cell.height / height)
    if scale == 1.0 and (width, height) == (cell.width, cell.height):
        return cell
    fitted_width = max(2, min(cell.width, _even_down(width * scale)))
    fitted_height = max(2, min(cell.height, _even_down(height * scale)))
    x = cell.x + (cell.width - fitted_width) // 4 * 2
    y = cell.y + (cell.height - fitted_height) // 4 * 2
    return Tile(x, y, fitted_width, fitted_height)


def crop(planes: Planes, tile: Tile) -> Planes:
    """Views of the tile's part of the planes."""
    y, u, v = planes
    rows, columns = slice(tile.y, tile.y + tile.height), slice(tile.x, tile.x + tile.width)
    half_rows = slice(tile.y // 2, (tile.y + tile.height) // 2)
    half_columns = slice(tile.x // 2, (tile.x + tile.width) // 2)
    return y[rows, columns], u[half_rows, half_columns], v[half_rows, half_columns]


def planes_of(frame: av.VideoFrame) -> Planes:
    """Writable views of a yuv420p frame's planes, without the padding of their lines."""
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
    return y, u, v


def _even_down(value: float) -> int:
    return max(MIN_SIDE, int(value) // 2 * 2)
