"""Events: what happened, as CloudEvents 1.0 in JSON. Pure but for the id and time that `Event.new` takes by default."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from belvedere.bus import subjects
from belvedere.bus.errors import InvalidDocument

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/cloudevents+json"


@dataclass(frozen=True)
class Event:
    """One thing that happened; published on `belvedere.events.<type>`."""

    type: str
    """`<service>.<thing>.<happened>`, such as `registry.device.online`."""
    source: str
    """Who says so: `/belvedere/<service>`."""
    subject: str
    """What it happened to: the id of the device, instance, job or package."""
    account: str
    region: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """The JSON form of the proto message that describes it."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Unique; also the Nats-Msg-Id by which the stream drops a second copy."""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def nats_subject(self) -> str:
        """Where it is published."""
        return subjects.event(self.type)

    def to_json(self) -> bytes:
        """The CloudEvents JSON envelope."""
        envelope = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "account": self.account,
            "region": self.region,
            "data": dict(self.data),
        }
        return json.dumps(envelope, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Event:
        """Reads an envelope; InvalidDocument names what is missing."""
        try:
            envelope = json.loads(raw)
            if envelope["specversion"] != SPEC_VERSION:
                raise InvalidDocument(f"an event of CloudEvents {envelope['specversion']}, this reads {SPEC_VERSION}")
            return cls(
                type=str(envelope["type"]),
                source=str(envelope["source"]),
                subject=str(envelope["subject"]),
                account=str(envelope["account"]),
                region=str(envelope["region"]),
                data=dict(envelope.get("data") or {}),
                id=str(envelope["id"]),
                time=datetime.fromisoformat(envelope["time"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidDocument(f"an event that cannot be read: {error!r}") from error
