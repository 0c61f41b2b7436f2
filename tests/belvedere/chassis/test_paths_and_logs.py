"""Socket folders stay short and private; log lines are JSON and hold no secret."""

import io
import json
import logging
import stat
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from belvedere.chassis import logs
from belvedere.chassis.paths import SOCKET_PATH_MAX, CloudPaths, EdgePaths, UnsafePath, remove_run_dir, run_dir
from belvedere.chassis.secret import Secret
from tests.support.waiting import until


def test_sockets_stay_within_the_limit_however_long_the_data_folder_is(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 20) / ("longer" * 20)
    paths = EdgePaths(data)
    paths.prepare()
    sockets = [
        paths.camera_socket("a-camera-with-a-name-" + "x" * 100),
        paths.app_run("applicationInstance-" + "a" * 26) / "control.sock",
        paths.display_socket("applicationInstance-" + "a" * 26),
    ]
    assert all(len(str(socket)) <= SOCKET_PATH_MAX for socket in sockets)
    assert paths.camera_socket("x" * 100) != paths.camera_socket("x" * 101)
    assert run_dir(data) == run_dir(Path(str(data) + "/../" + data.name)) == (data / "run").resolve()
    assert stat.S_IMODE(run_dir(data).stat().st_mode) == 0o700
    remove_run_dir(data)
    assert not (data / "run").is_symlink()


def test_a_short_data_folder_holds_its_own_sockets() -> None:
    data = Path(tempfile.mkdtemp(prefix="bv-", dir="/tmp"))
    try:
        assert run_dir(data) == data / "run"
    finally:
        (data / "run").rmdir()
        data.rmdir()


def test_a_socket_folder_that_is_no_folder_of_ours_is_refused(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 30)
    target = run_dir(data)
    target.rmdir()
    target.write_text("somebody else's")
    with pytest.raises((UnsafePath, FileExistsError)):
        run_dir(data)
    target.unlink()


def test_the_folder_of_secrets_is_private(tmp_path: Path) -> None:
    paths = CloudPaths(tmp_path)
    paths.prepare()
    assert stat.S_IMODE(paths.secrets.stat().st_mode) == 0o700
    remove_run_dir(tmp_path)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    import structlog

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = structlog.get_config()
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.configure("test")
    yield out
    root.handlers[:], root.level = handlers, level
    structlog.configure(**before)


def test_every_line_is_json_and_shows_no_secret(lines: io.StringIO) -> None:
    log = logs.get_logger("belvedere.test")
    seen: list[str] = []
    remove = logs.add_sink(lambda text, fields: seen.append(text))
    log.info("connected", password=Secret("hunter2"), nested={"token": Secret(b"hunter2")})
    logging.getLogger("some.library").warning("it said %s", "hello")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    remove()
    log.info("not seen by the sink")
    texts = lines.getvalue().splitlines()
    assert seen == texts[:3]
    assert "hunter2" not in lines.getvalue()
    first, second, third = (json.loads(text) for text in texts[:3])
    assert (first["event"], first["password"], first["nested"]["token"]) == ("connected", "***", "***")
    assert (second["event"], second["logger"], second["process"]) == ("it said hello", "some.library", "test")
    assert "ValueError: broken" in third["exception"]


def test_a_repeated_line_reads_as_any_other_whoever_hears_it(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", lines)  # pytest has put its own there since
    logs.configure("test")
    fields = ("text", "count", "share", "secret", "nothing", "yes")
    values = ('100 %s "quoted"\n ü \x07', 3, 0.25, Secret("hunter2"), None, True)
    repeated = logs.Repeated("belvedere.test", "a 100 % event", fields)
    seen: list[str] = []
    logs.get_logger("belvedere.test").info("a 100 % event", **dict(zip(fields, values, strict=True)))
    repeated.info(*values)
    remove = logs.add_sink(lambda text, fields: seen.append(text))
    repeated.info(*values)
    remove()
    logs.configure("another", logging.WARNING)
    repeated.info(*values)
    logs.configure("another")
    repeated.info(*values)
    said = [json.loads(text) for text in lines.getvalue().splitlines()]
    times = [line.pop("timestamp") for line in said]
    assert len({len(time) for time in times}) == 1 and times == sorted(times)
    assert len(said) == 4 and said[0] == said[1] == said[2] == {**said[3], "process": "test"}
    assert list(said[0]) == ["level", "process", "logger", "event", *fields]
    assert len(seen) == 1 and "hunter2" not in lines.getvalue()


async def test_repeated_lines_that_may_wait_are_written_together_with_the_time_of_each(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", lines)
    logs.configure("test")
    repeated = logs.Repeated("belvedere.test", "an event", ("number",))
    for number in range(3):
        repeated.later(number)
    assert not lines.getvalue()
    before = datetime.now(UTC)
    await until(lines.getvalue)
    said = [json.loads(text) for text in lines.getvalue().splitlines()]
    assert [line["number"] for line in said] == [0, 1, 2]
    assert all(datetime.fromisoformat(line["timestamp"]) <= before for line in said)
    for number in range(logs.LATER_LINES + 1):
        repeated.later(number)
    assert len(lines.getvalue().splitlines()) == 3 + logs.LATER_LINES
    repeated.flush()
    assert len(lines.getvalue().splitlines()) == 4 + logs.LATER_LINES
