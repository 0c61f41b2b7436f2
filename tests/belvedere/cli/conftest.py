"""What the commands' tests share: the account of who owns the cloud side behind a module's `door`."""

from __future__ import annotations

import pytest

from belvedere.cli.account import Account
from tests.support.front_door import Door


@pytest.fixture
def account(door: Door, monkeypatch: pytest.MonkeyPatch) -> Account:
    """The owner's, whose environment the commands find."""
    for name, value in door.environment.items():
        monkeypatch.setenv(name, value)
    return Account.from_environment()
