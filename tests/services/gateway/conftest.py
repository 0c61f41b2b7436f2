"""One cloud for all tests of the front door that need a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.front_door import Door, front_door


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with front_door(tmp_path_factory.mktemp("cloud")) as running:
        yield running
