"""AWS_ENDPOINT_URL for a botocore that does not know it: those before 1.31 (July 2023), which most code assets brought
along. Where such a one is imported, before or after this SDK, clients made without an endpoint of their own get the one of the
environment; a newer one is left as it is.

Must not import botocore: an application that has none must not need it.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
from typing import Any

SESSION = "botocore.session"
KNOWS_SINCE = (1, 31)
VARIABLE = "AWS_ENDPOINT_URL"
_BEFORE_ENDPOINT = 4
"""Parameters of create_client between the service's name and `endpoint_url`: region, API version, TLS, verification."""
_MARK = "_taught_by_panoramasdk"


def install() -> None:
    """Sees to it, now or when botocore is imported."""
    if SESSION in sys.modules:
        _teach(sys.modules[SESSION])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Steps aside once botocore has come."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != SESSION:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                _teach(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _teach(module: Any) -> None:
    version = getattr(sys.modules.get("botocore"), "__version__", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    session = getattr(module, "Session", None)
    if len(numbers) < 2 or numbers >= KNOWS_SINCE or session is None or hasattr(session.create_client, _MARK):
        return
    plain = session.create_client

    @functools.wraps(plain)
    def create_client(self: Any, service_name: str, *args: Any, **kwargs: Any) -> Any:
        if len(args) <= _BEFORE_ENDPOINT and not kwargs.get("endpoint_url"):
            own = "%s_%s" % (VARIABLE, service_name.upper().replace("-", "_").replace(" ", "_"))
            url = os.environ.get(own) or os.environ.get(VARIABLE)
            if url:
                kwargs["endpoint_url"] = url
        return plain(self, service_name, *args, **kwargs)

    setattr(create_client, _MARK, True)
    session.create_client = create_client
