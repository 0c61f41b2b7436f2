"""Why a stream shows nothing, in a sentence for its placard, out of what ingest says of its cameras. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of states that bring no reason of their own.
SENTENCES = {
    "streaming": "the camera delivers, the application shows nothing of it",
    "standby": "the application asks the camera for nothing",
    "paused": "the camera is paused",
}


def reasons(status: Mapping[str, Any]) -> dict[str, str]:
    """Of an `ingest.status`: camera id → sentence, for every camera in it."""
    return {str(row["camera_id"]): _sentence(row) for row in status.get("cameras", ())}


def _sentence(row: Mapping[str, Any]) -> str:
    reason = row.get("reason")
    if isinstance(reason, Mapping) and reason.get("message"):
        return str(reason["message"])
    state = str(row.get("state", "unknown"))
    return SENTENCES.get(state, f"the camera is {state.replace('_', ' ')}")
