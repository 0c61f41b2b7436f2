"""Following what other services publish: every event of a subject, once a service, in a consumer that outlives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import InvalidDocument
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume

log = structlog.get_logger("belvedere.bus")


async def follow(bus: Bus, durable: str, subject: str, take: Callable[[Event], Awaitable[None]]) -> None:
    """Calls `take` with each event on `subject`, one after the other, until cancelled; replicas share the work.

    What is no event, or what `take` cannot read (InvalidDocument), is logged and does not come again. What else it raises
    is raised here: the event comes again.
    """
    async for message in consume(bus, subjects.EVENTS_STREAM, durable=durable, filter_subject=subject):
        try:
            await take(Event.from_json(message.data))
        except InvalidDocument as error:
            log.error("an event cannot be read", subject=message.subject, reason=str(error))
            await message.term()
        else:
            await message.ack()
