"""`belvedere run`, `app test` and `app dev` as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.browser import CHROMIUM, live_page
from tests.support.clips import make_clip
from tests.support.local_run import code_of, copied, motion_app
from tests.support.whole import Running, command, run, wait_for

pytestmark = pytest.mark.timeout(300)
"""Its tests start programs, each of which takes seconds of a busy machine."""
FREE_PORTS = {"BELVEDERE_DISPLAY_RTSP_PORT": "0", "BELVEDERE_DISPLAY_HTTP_PORT": "0"}
END_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "moving.mp4", fps=15, seconds=2.0, keyframe_every_s=0.2)


@pytest.fixture
def dev(tmp_path: Path, clip: Path) -> Iterator[tuple[Running, Path]]:
    """`belvedere app dev` on a new application that delivers."""
    app = motion_app(tmp_path / "watch").root
    running = Running("dev", tmp_path / "logs", command("app", "dev", app, "--camera", clip), FREE_PORTS)
    try:
        running.line("video ")
        yield running, app
    finally:
        running.process.send_signal(signal.SIGINT)
        running.process.wait(END_TIMEOUT_S)


def test_a_run_says_where_to_look_and_ends_clean_at_ctrl_c(
    request: pytest.FixtureRequest, tmp_path: Path, clip: Path
) -> None:
    app = motion_app(tmp_path / "watch").root
    figures = tmp_path / "figures.json"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    arguments = command("run", app, "--camera", clip, "--override", "sensitivity=0.05", "--json", figures)
    running = Running("run", tmp_path / "logs", arguments, {**FREE_PORTS, "TMPDIR": str(temporary)})
    request.addfinalizer(running.stop)
    assert running.line("video ").split()[1].startswith("rtsp://viewer:")
    page = Path(running.line("browser ").split("file://")[1])
    assert "ws://127.0.0.1:" in page.read_text() and page.stat().st_mode & 0o077 == 0
    if CHROMIUM.exists():  # of Debian; without it, the page is only read
        with live_page(page.as_uri()) as opened:
            opened.wait_for_function("document.getElementById('video').currentTime > 0.5")
            assert opened.evaluate("document.getElementById('state').textContent") == "320×240"
    running.line("watch: starting")  # what the application writes
    children = psutil.Process(running.process.pid).children(recursive=True)
    assert len(children) > 8

    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(END_TIMEOUT_S) == 0
    found = json.loads(figures.read_text())
    assert found["frames_taken"] >= 1 and found["started_s"] > 0
    assert "first delivery after" in running.output.read_text()
    wait_for("every process gone", lambda: not any(child.is_running() for child in children) or None)
    assert not list(temporary.glob("belvedere-run-*"))


def test_mistakes_are_told_all_at_once_and_nothing_runs(tmp_path: Path, clip: Path) -> None:
    app = copied("facing-people", tmp_path)
    code = code_of(app)
    code.write_text(code.read_text() + "def (\n")
    ended = run("run", app, "--camera", clip)
    assert ended.returncode == 2
    assert ended.stderr.startswith("belvedere: 3 problems to mend:\n")
    assert all(name in ended.stderr for name in ("application.py: line", "FACE_CLASSIFIER", "PERSON_DETECTOR"))
    assert run("run", app, "--camera", "rtsp://127.0.0.1:1/x", "--fault", "absent").returncode == 2


def test_a_saved_change_runs_and_a_broken_one_does_not(dev: tuple[Running, Path]) -> None:
    running, app = dev
    code = code_of(app)
    good = code.read_text()
    delivered_within_s = time.time() - psutil.Process(running.process.pid).create_time()
    code.write_text(good.replace("watch: starting", "watch: changed"))
    running.line("swapped: ")
    running.line("watch: changed")
    errors = running.output.with_suffix(".err")
    code.write_text(good + "def (\n")
    wait_for("the syntax error is told", lambda: "application.py: line" in errors.read_text() or None)
    code.write_text('raise SystemExit("no use")\n')
    wait_for("the failure is told", lambda: "not swapped: " in errors.read_text() or None)
    assert "not swapped: exit code 1: no use; the old code runs on\n" in errors.read_text()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(END_TIMEOUT_S) == 0, "the changed code ran on to the end"
    started = running.line("first delivery after").split()[-2]
    assert 0 < float(started) < delivered_within_s, "the run's first delivery, not that of the changed code"


def test_app_test_tells_people_and_build_servers_what_became_of_each_scenario(tmp_path: Path, clip: Path) -> None:
    app = motion_app(tmp_path / "watch").root
    code = code_of(app)
    code.write_text(
        code.read_text().replace("self.before = {}", "self.before = {}\n        1 / (self.sensitivity < 1)")
    )
    tests = app / "tests"
    (tests / "motion.toml").unlink()
    (tests / "bad.toml").write_text("[run]\nframes = 3\n[expect]\nboxes = 1000000\n")
    (tests / "good.toml").write_text("[run]\nonce = true\n[expect]\nframes = 3\nlabels = 'motion'\n")
    (tests / "never.toml").write_text("[run]\nlimit_s = 30\nparameters = {sensitivity = 2}\n")
    # Its camera hangs up, damages pictures and forgets the time: the application takes frames on, and is not started again.
    (tests / "spoilt.toml").write_text('[run]\nframes = 60\nfault = "faults.toml"\n[expect]\nrestarts = 0\n')
    (tests / "faults.toml").write_text(
        '[[fault]]\ndo = "drop"\nat_s = 1\nfor_s = 0.5\n[[fault]]\ndo = "corrupt"\nevery = 3\nat_s = 2\nfor_s = 1\n'
        '[[fault]]\ndo = "clock"\nby_s = -3600\nat_s = 3\n'
    )
    report, summary = tmp_path / "report.xml", tmp_path / "summary.json"
    done = subprocess.run(
        command("app", "test", app, "--camera", clip, "--junit", report, "--json", summary),
        env={**os.environ, **FREE_PORTS}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert [" ".join(line.split()[:2]) for line in done.stdout.splitlines() if line[:4] in ("ok  ", "FAIL")] == [
        "FAIL bad", "ok good", "FAIL never", "ok spoilt",
    ], told  # fmt: skip
    assert "2 passed, 2 failed" in done.stdout and 'tests="4" failures="2"' in report.read_text()
    bad, good, never, spoilt = json.loads(summary.read_text())
    assert bad["failures"][0].startswith("boxes: ")
    assert good["passed"] and good["figures"]["frames_taken"] >= 3
    assert never["failures"] == ["it has delivered nothing: exit code 1: ZeroDivisionError: division by zero"]
    assert any("Traceback" in line for line in never["log"])
    assert spoilt["figures"]["frames_taken"] >= 60
