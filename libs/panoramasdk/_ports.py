"""`port`: what `node.inputs` and `node.outputs` consist of.

Must not know: sockets. Cameras and displays are behind `Cameras` and `Display`.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, Sequence

from panoramasdk._cameras import Cameras
from panoramasdk._errors import NodeError
from panoramasdk._media import media


class port:
    """One port of the node: an input has `get`, an output has `put`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, timeout: float | None = None) -> Any:
        """Only inputs can be read."""
        raise NodeError("%r is an output: it has put(), not get()" % self.name)

    def put(self, outputs: Any) -> None:
        """Only outputs can be written."""
        raise NodeError("%r is an input: it has get(), not put()" % self.name)


class LiteralInput(port):
    """A value from the application's graph or its overrides."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__(name)
        self._value = value

    def get(self, timeout: float | None = None) -> Any:
        """The value: bool, int, float or str; the same at every call, at once."""
        return self._value


class MediaInput(port):
    """Cameras."""

    def __init__(self, name: str, cameras: Cameras) -> None:
        super().__init__(name)
        self._cameras = cameras

    def get(self, timeout: float | None = None) -> list[media]:
        """A list of media, one for each camera; waits until at least one of them has a new frame.

        The others contribute their previous frame, with `is_cached` set; a camera that has not delivered yet, or not
        for ten seconds, contributes none. `timeout` in seconds: TimeoutError when no frame came. None waits for ever.
        """
        return self._cameras.get(timeout)


class MediaOutput(port):
    """A display, or nothing where the graph connects none."""

    def __init__(self, name: str, show: Callable[[Sequence[media]], None]) -> None:
        super().__init__(name)
        self._show = show

    def put(self, outputs: Any) -> None:
        """Show a media, or a list or tuple of them. Never waits for the display: it skips what it has no time for.

        ValueError for an empty list, TypeError for anything that is not media.
        """
        medias = [outputs] if isinstance(outputs, media) else outputs
        if not isinstance(medias, (list, tuple)):
            raise TypeError("put() takes media, or a list or tuple of media, not %s" % type(outputs).__name__)
        if not medias:
            raise ValueError("put() was given no media")
        for one in medias:
            if not isinstance(one, media):
                raise TypeError("put() takes media; this list has a %s" % type(one).__name__)
        self._show(medias)


class Ports:
    """The ports of one direction, as attributes: `node.inputs.video_in`."""

    def __init__(self, direction: str, ports: dict[str, port]) -> None:
        self._direction = direction
        self._ports = ports

    def __getattr__(self, name: str) -> port:
        ports: dict[str, port] = self.__dict__.get("_ports", {})
        if name not in ports:
            known = ", ".join(sorted(ports)) or "none"
            raise AttributeError("the node has no %s %r; it has: %s" % (self.__dict__.get("_direction"), name, known))
        return ports[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ports)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._ports]
