"""Which ports and paths the videos have, so that an address stays the same from one start to the next."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from belvedere.chassis.logs import get_logger
from belvedere.rtsp import ListenFailed

log = get_logger(__name__)

SUFFIX_LENGTH = 8


class PortMemory:
    """The ports taken at the first start, in a file of the appliance's data folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def listen(self, name: str, wanted: int, try_port: Callable[[int], Awaitable[int]]) -> int:
        """Calls `try_port` (raises OSError or ListenFailed where the port is taken; gives the port listened on) until
        it listens.

        The order: the port of the last time, unless another one is wanted now; the wanted port; any free one.
        """
        memory = self._read()
        last = memory.get(name, {})
        candidates = [last.get("port", wanted) if last.get("wanted") == wanted else wanted, wanted, 0]
        for port in dict.fromkeys(candidates):
            try:
                taken = await try_port(port)
            except (OSError, ListenFailed) as error:
                if port == 0:
                    raise
                log.warning("port is in use, trying another", what=name, port=port, why=str(error))
                continue
            memory[name] = {"wanted": wanted, "port": taken}
            self._write(memory)
            return taken
        raise AssertionError("port 0 either listens or raises")

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("the ports of the last start cannot be read", path=str(self._path), why=str(error))
            return {}
        return (
            {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}
        )

    def _write(self, memory: Mapping[str, Mapping[str, int]]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._path.with_suffix(".new")
        partial.write_text(json.dumps(memory))
        partial.replace(self._path)


def assign_paths(outputs: Iterable[tuple[str, str]], before: Mapping[str, str]) -> dict[str, str]:
    """RTSP paths for (instance id, application name) pairs: the application's name, for one instance of that name.

    While a new instance takes over from an old one of the same name, the old one (`before`) keeps the name until it is
    gone; the new one has the name with the end of its instance id until then.
    """
    outputs = list(outputs)
    paths: dict[str, str] = {}
    for instance_id, name in outputs:
        if before.get(instance_id) == name:
            paths[instance_id] = name
    for instance_id, name in outputs:
        if instance_id not in paths:
            free = name not in paths.values()
            paths[instance_id] = name if free else f"{name}-{instance_id[-SUFFIX_LENGTH:]}"
    return paths
