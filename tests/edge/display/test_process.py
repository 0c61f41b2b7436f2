"""`python -m edge.display` on a real local bus, and the addresses that stay the same."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from belvedere.chassis.edge import CommandFailed, ask
from belvedere.chassis.paths import EdgePaths
from belvedere.viewer import viewer_rtsp_password
from edge.display.addresses import assign_paths
from edge.display.composer import MAX_STREAMS
from edge.display.wanted import Wanted, WantedInvalid
from framelink import OutputSender, PixelPicture
from tests.edge.display.conftest import CAMERA, INSTANCE, KEY, Shown, output, running
from tests.edge.display.test_rtsp_output import red, watch
from tests.support.edge_bus import edge_bus, edge_process
from tests.support.showing import Showing
from tests.support.waiting import until


async def test_the_process_shows_survives_its_worker_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELVEDERE_DISPLAY_RTSP_PORT", "0")
    monkeypatch.setenv("BELVEDERE_DISPLAY_HTTP_PORT", "0")
    wanted = {"outputs": [output()], "viewer_key": base64.b64encode(KEY).decode()}
    async with edge_bus(tmp_path) as bus, edge_process("display", tmp_path, bus) as process:
        await ask(tmp_path, "display", "apply", wanted, timeout_s=60)
        status = await process.status(lambda status: status["outputs"])
        url = status["outputs"][0]["rtsp_url"]
        with Showing(EdgePaths(tmp_path), CAMERA, INSTANCE, rects=[(0.25, 0.25, 0.75, 0.5)]):
            status = await process.status(lambda status: status["outputs"][0]["first_output_at_ms"])
            assert status["outputs"][0]["frames_displayed"] == 0
            seen = url.replace("rtsp://", f"rtsp://viewer:{viewer_rtsp_password(KEY)}@")
            assert red((await asyncio.to_thread(watch, seen, 5))[-1]).any()
            await process.status(lambda status: status["outputs"][0]["latency_display_ms"]["count"] > 0)

            workers = psutil.Process(process.child.pid).children(recursive=True)
            assert len(workers) == 1
            workers[0].kill()
            await process.status(lambda status: not status["outputs"] or not status["outputs"][0]["frames_displayed"])
            again = await process.status(lambda status: status["outputs"] and status["outputs"][0]["frames_received"])
            assert again["outputs"][0]["rtsp_url"] == url, "the address is the same as before"
            assert red((await asyncio.to_thread(watch, seen, 5))[-1]).any()
        with pytest.raises(CommandFailed, match=r"outputs\[0\].application"):
            await ask(tmp_path, "display", "apply", {"outputs": [{"instance_id": "x"}]})


async def test_ports_are_kept_from_one_start_to_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as shown:
        await shown.apply(output())
        first = shown.row()
    async with running(tmp_path) as shown:
        await shown.apply(output())
        assert (shown.row()["rtsp_url"], shown.row()["websocket_url"]) == (first["rtsp_url"], first["websocket_url"])


async def test_a_taken_port_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running(tmp_path, rtsp_port=port) as shown:
            await shown.apply(output())
            kept = shown.row()["rtsp_url"]
            assert f":{port}/" not in kept
    async with running(tmp_path, rtsp_port=port) as shown:
        await shown.apply(output())
        assert shown.row()["rtsp_url"] == kept, "also when the wanted one is free again"


async def test_a_successor_takes_the_name_when_the_old_one_is_gone(tmp_path: Path) -> None:
    old, new = "applicationInstance-old0000000", "applicationInstance-new1111111"
    async with running(tmp_path) as shown:
        await shown.apply(output(old, "counter"))
        await shown.apply(output(old, "counter"), output(new, "counter"))
        assert shown.row(old)["rtsp_url"].endswith("/counter")
        assert shown.row(new)["rtsp_url"].endswith("/counter-w1111111")
        await shown.apply(output(new, "counter"))
        assert shown.row(new)["rtsp_url"].endswith("/counter")


def test_a_name_belongs_to_one_instance_at_a_time() -> None:
    assert assign_paths([("a1", "x"), ("a2", "y")], {}) == {"a1": "x", "a2": "y"}
    assert assign_paths([("a1", "x"), ("a2", "x")], {"a2": "x"}) == {"a2": "x", "a1": "x-a1"}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], "must be an object"),
        ({}, "outputs: "),
        ({"outputs": [1]}, r"outputs\[0\]: "),
        ({"outputs": [{**output(), "application": None}]}, r"outputs\[0\].application"),
        ({"outputs": [{**output(), "instance_id": "/"}]}, r"outputs\[0\].instance_id"),
        ({"outputs": [{**output(), "cameras": [7]}]}, r"outputs\[0\].cameras"),
        ({"outputs": [], "viewer_key": "%%%"}, "viewer_key: must be base64"),
        ({"outputs": [], "viewer_key": "AAAA"}, "viewer_key: must have"),
    ],
)
def test_a_wrong_document_is_refused_with_the_place(document: object, place: str) -> None:
    with pytest.raises(WantedInvalid, match=place):
        Wanted.from_json(document)


def test_an_application_without_a_name_is_shown_under_its_instance_id() -> None:
    wanted = Wanted.from_json({"outputs": [{**output(), "application": ""}]})
    assert wanted.outputs[0].application == INSTANCE


def test_the_viewer_key_is_never_printed() -> None:
    wanted = Wanted.from_json({"outputs": [], "viewer_key": base64.b64encode(KEY).decode()})
    assert base64.b64encode(KEY).decode() not in repr(wanted)
    assert repr(KEY) not in repr(wanted)


async def test_an_application_cannot_show_as_another_though_it_says_it_is(shown: Shown) -> None:
    other = INSTANCE[:-1] + "b"
    await shown.apply(output(INSTANCE), output(other, "other"))
    pixels = np.zeros((36, 64, 3), np.uint8)
    with contextlib.closing(OutputSender(shown.paths.display_socket(other), INSTANCE, "people")) as liar:
        # Dropped until the sender has connected, as any application's first pictures may be.
        await until(lambda: liar.put(PixelPicture("front", pixels, time.monotonic_ns())))
        await until(lambda: shown.row(other)["frames_received"] > 0)
    assert shown.row(INSTANCE)["frames_received"] == 0


async def test_pictures_that_are_not_shown_are_counted_by_cause(shown: Shown) -> None:
    await shown.apply(output())
    assert set(shown.row()["drops"].values()) == {0}
    pixels = np.zeros((64, 64, 3), np.uint8)
    with contextlib.closing(OutputSender(shown.paths.display_socket(INSTANCE), INSTANCE, "people")) as sender:
        for number in range(MAX_STREAMS + 2):
            picture = PixelPicture(f"camera-{number}", pixels, time.monotonic_ns())
            await until(lambda picture=picture: sender.put(picture))
        await until(lambda: shown.row()["frames_received"] == MAX_STREAMS + 2)
    assert shown.row()["drops"] == {
        "overtaken": 0,
        "unusable": 0,
        "too_many_streams": 2,
        "screen_behind": 0,
        "viewer_behind": 0,
    }
    assert shown.row()["frames_dropped"] == 2
