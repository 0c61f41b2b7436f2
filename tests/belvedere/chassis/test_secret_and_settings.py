"""Secrets stay hidden; settings name the variable that is wrong."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from belvedere.chassis.secret import Secret, json_default
from belvedere.chassis.settings import SettingError, describe, load


@dataclass(frozen=True)
class Example:
    name: str
    """What it is called."""
    port: int = 8700
    """Where it listens."""
    interval_s: float = 1.5
    quiet: bool = False
    folder: Path | None = None
    password: Secret[str] | None = None
    names: tuple[str, ...] = ("a",)
    mode: Literal["fast", "safe"] = "safe"


def test_a_secret_prints_as_stars_everywhere() -> None:
    secret = Secret("hunter2")
    shown = [str(secret), repr(secret), f"{secret:>10}", f"{secret!r}", json.dumps({"x": secret}, default=json_default)]
    shown += [str(Example("x", password=secret)), str([secret]), "%s" % secret]  # noqa: UP031
    assert not any("hunter2" in text for text in shown)
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_settings_come_from_the_environment_with_their_types() -> None:
    environ = {
        "X_NAME": "n",
        "X_PORT": "1",
        "X_INTERVAL_S": "0.25",
        "X_QUIET": "yes",
        "X_FOLDER": "/data",
        "X_PASSWORD": "p",
        "X_NAMES": "a, b",
        "X_MODE": "fast",
    }
    assert load(Example, "X_", environ) == Example("n", 1, 0.25, True, Path("/data"), Secret("p"), ("a", "b"), "fast")
    assert load(Example, "X_", {"X_NAME": "n"}) == Example("n")


@pytest.mark.parametrize(
    ("variable", "value"), [("X_PORT", "many"), ("X_QUIET", "perhaps"), ("X_MODE", "slow"), ("X_INTERVAL_S", "")]
)
def test_a_wrong_setting_is_named_with_what_it_takes(variable: str, value: str) -> None:
    with pytest.raises(SettingError, match=variable) as caught:
        load(Example, "X_", {"X_NAME": "n", variable: value})
    assert caught.value.variable == variable
    with pytest.raises(SettingError, match="X_NAME: is not set"):
        load(Example, "X_", {})


def test_settings_describe_themselves() -> None:
    described = {doc.variable: doc for doc in describe(Example, "X_")}
    assert described["X_NAME"].doc == "What it is called."
    assert (described["X_PORT"].type, described["X_PORT"].default) == ("a whole number", "8700")
