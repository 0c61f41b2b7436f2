"""What the stages measure, in both forms; Prometheus' over real HTTP and read back by its own parser."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.agent.exporter import Exporter
from edge.agent.stages import PREFIX, STAGES, Kind, Sample, changes, samples

CAMERA: dict[str, Any] = {
    "camera_id": 'front "door"', "state": "streaming", "fps_in": 15.0, "frames_decoded": 100, "bytes_in": 5000,
    "drops": {"no_slot": 2, "undecodable": 0}, "decode_ms": {"p50": 4.0, "p99": None}, "last_frame_age_ms": 40,
}  # fmt: skip
OUTPUT = {"instance_id": "applicationInstance-a", "frames_displayed": 7, "draw_ms": {"p50": 1.5, "p99": 3.0}}
STATUSES: dict[str, dict[str, Any]] = {
    "ingest": {"cameras": [CAMERA]},
    "display": {"outputs": [OUTPUT]},
    "inference": {},
}


def test_a_status_row_becomes_figures_with_units_and_labels_and_what_is_not_there_is_left_out() -> None:
    found = {(sample.name, *dict(sample.labels).values()): sample.value for sample in samples(STATUSES, {})}
    assert found == {
        ("belvedere_camera_state", 'front "door"', "streaming"): 1,
        ("belvedere_camera_fps_in", 'front "door"'): 15,
        ("belvedere_camera_frames_decoded", 'front "door"'): 100,
        ("belvedere_camera_frames_dropped", 'front "door"', "no_slot"): 2,
        ("belvedere_camera_frames_dropped", 'front "door"', "undecodable"): 0,
        ("belvedere_camera_received_bytes", 'front "door"'): 5000,
        ("belvedere_camera_decode_seconds", 'front "door"', "0.5"): 0.004,
        ("belvedere_camera_last_frame_age_seconds", 'front "door"'): 0.04,
        ("belvedere_display_frames_displayed", "applicationInstance-a", ""): 7,
        ("belvedere_display_draw_seconds", "applicationInstance-a", "", "0.5"): 0.0015,
        ("belvedere_display_draw_seconds", "applicationInstance-a", "", "0.99"): 0.003,
    }
    named = samples(STATUSES, {"applicationInstance-a": "counter"})
    assert ("application", "counter") in named[-1].labels


def test_counters_are_sent_as_what_they_rose_by_and_one_that_began_anew_as_all_it_counts() -> None:
    first, before = changes(samples(STATUSES, {}), {})
    assert "CameraFramesDecoded" not in {datum.name for datum in first}, "since when it rises is not known"
    assert {(datum.name, datum.value) for datum in first} >= {
        ("CameraFrameRateIn", 15),
        ("DecodeTimeP50", 4),
        ("DrawTimeP99", 3),
    }
    camera = CAMERA | {"frames_decoded": 130, "drops": {"no_slot": 1}}
    second, _ = changes(samples(STATUSES | {"ingest": {"cameras": [camera]}}, {}), before)
    values = {(datum.name, datum.dimensions.get("Cause")): datum.value for datum in second}
    assert values["CameraFramesDecoded", None] == 30
    assert values["CameraBytesIn", None] == 0
    assert values["CameraFramesDropped", "no_slot"] == 1
    assert all(
        datum.dimensions.get("CameraId") == 'front "door"' for datum in second if datum.name.startswith("Camera")
    )


@pytest.fixture
async def exporter() -> AsyncIterator[Exporter]:
    made = Exporter(lambda: samples(STATUSES, {"applicationInstance-a": "counter"}), "127.0.0.1", 0)
    await made.start()
    yield made
    await made.close()


async def test_prometheus_reads_them_back(exporter: Exporter) -> None:
    async with aiohttp.ClientSession() as session, session.get(exporter.url) as answer:
        assert answer.status == 200 and answer.content_type == "text/plain"
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    dropped = families["belvedere_camera_frames_dropped"]
    assert dropped.type == "counter"
    assert {(s.name, s.labels["camera_id"], s.labels["cause"], s.value) for s in dropped.samples} == {
        ("belvedere_camera_frames_dropped_total", 'front "door"', "no_slot", 2.0),
        ("belvedere_camera_frames_dropped_total", 'front "door"', "undecodable", 0.0),
    }
    assert families["belvedere_display_draw_seconds"].type == "gauge"


async def test_other_paths_and_methods_are_refused_and_a_taken_port_is_made_good(exporter: Exporter) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(exporter.url.replace("/metrics", "/secrets")) as answer:
            assert answer.status == 404
        async with session.post(exporter.url) as answer:
            assert answer.status == 405
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = Exporter(
            lambda: [Sample("a", Kind.GAUGE, "A.", (), 1, "", "", ())], "127.0.0.1", taken.getsockname()[1]
        )
        await second.start()
        try:
            async with aiohttp.ClientSession() as session, session.get(second.url) as answer:
                assert "a 1.0" in await answer.text()
        finally:
            await second.close()


def test_the_documentation_names_every_figure() -> None:
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text("utf-8")
    for stage in STAGES:
        for measure in stage.measures:
            assert f"`{PREFIX}{stage.prefix}_{measure.name}" in text
            assert not measure.metric or f"`{measure.metric}" in text
