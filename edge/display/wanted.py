"""What is to be shown: the document of `display.apply`, read and checked. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from belvedere.chassis.secret import Secret

MIN_KEY_BYTES = 16


class WantedInvalid(ValueError):
    """The document is not as docs/architecture.md says; the message names the place."""


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """One application instance's sink."""

    instance_id: str
    application: str
    """The application's name: the last part of its RTSP address."""
    node: str
    cameras: tuple[str, ...]
    """Ids of the cameras whose frames it may show by reference."""
    streams: tuple[tuple[str, str], ...] = ()
    """(stream id, camera id): which camera a stream without pictures lacks them of."""


@dataclass(frozen=True, slots=True)
class Wanted:
    outputs: tuple[WantedOutput, ...]
    viewer_key: Secret[bytes] | None
    """None before the appliance knows it: then nobody may look."""

    @classmethod
    def from_json(cls, document: Any) -> Wanted:
        """Raises WantedInvalid."""
        if not isinstance(document, Mapping):
            raise WantedInvalid("must be an object")
        rows = document.get("outputs")
        if not isinstance(rows, list):
            raise WantedInvalid("outputs: must be a list")
        return cls(
            tuple(_output(f"outputs[{at}]", row) for at, row in enumerate(rows)), _key(document.get("viewer_key"))
        )


def _output(place: str, row: Any) -> WantedOutput:
    if not isinstance(row, Mapping):
        raise WantedInvalid(f"{place}: must be an object")
    texts = {}
    for name in ("instance_id", "application", "node"):
        value = row.get(name)
        if not isinstance(value, str):
            raise WantedInvalid(f"{place}.{name}: must be a text")
        texts[name] = value.strip("/")
    if not texts["instance_id"]:
        raise WantedInvalid(f"{place}.instance_id: must not be empty")
    texts["application"] = texts["application"] or texts["instance_id"]  # names are optional in the API
    cameras = row.get("cameras", [])
    if not isinstance(cameras, list) or not all(isinstance(camera, str) and camera for camera in cameras):
        raise WantedInvalid(f"{place}.cameras: must be a list of camera ids")
    streams = row.get("streams", {})
    if not isinstance(streams, Mapping) or not all(isinstance(camera, str) for camera in streams.values()):
        raise WantedInvalid(f"{place}.streams: must be an object of camera ids by stream id")
    return WantedOutput(
        texts["instance_id"], texts["application"], texts["node"], tuple(cameras), tuple(sorted(streams.items()))
    )


def _key(text: Any) -> Secret[bytes] | None:
    if text in (None, ""):
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise WantedInvalid("viewer_key: must be base64") from None  # the cause would show the key
    if len(key) < MIN_KEY_BYTES:
        raise WantedInvalid(f"viewer_key: must have {MIN_KEY_BYTES} bytes or more")
    return Secret(key)
