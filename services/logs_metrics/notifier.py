"""Tells of alarms: each `logs_metrics.alarm.changed` is posted to the addresses of the setting `alarm_webhooks`.

There is no SNS here. An alarm's actions are kept and shown as they were given, and say only *that* somebody is to be
told: a change is posted if the alarm's actions are enabled and it has one for its new state, as CloudWatch would. *Where*
is the operator's word alone: an address out of an API call could make the cloud side speak to anything in its network.

The body is the JSON of CloudWatch's own notifications by SNS (AlarmName, NewStateValue, NewStateReason, Trigger, …), so
what reads those reads these. Delivery is at least once, in no order, header `X-Belvedere-Event` the same for copies. An
address that answers with anything but 2xx within POST_TIMEOUT_S is tried again, all of them ATTEMPTS_MAX times; what could
not be delivered is counted, logged, and a line in the alarm's history.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import InvalidDocument
from belvedere.bus.event import Event
from belvedere.bus.jetstream import StoredMessage, consume
from belvedere.chassis.database import Database
from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret
from belvedere.chassis.settings import SettingError
from belvedere.v1 import logs_metrics_pb2 as pb
from services.logs_metrics import alarms
from services.logs_metrics.store import AlarmRow

log = get_logger(__name__)

VARIABLE = "BELVEDERE_LOGS_METRICS_ALARM_WEBHOOKS"
DURABLE = "logs_metrics-alarms"
POST_TIMEOUT_S = 5.0
ATTEMPTS_MAX = 8
RETRY_MAX_S = 60.0
STALE_S = 3600.0
"""Older changes are not news: a webhook that is set up today does not hear of last week's."""


@dataclass
class NotifierStats:
    """Counters since the start."""

    delivered: int = 0
    failed: int = 0
    """Changes that were given up."""
    stale: int = 0


class Notifier:
    """Posts changes of alarms."""

    def __init__(self, database: Database, bus: Bus, addresses: Secret[str], clock: Callable[[], datetime]) -> None:
        """Raises SettingError for addresses that are none."""
        self._database = database
        self._bus = bus
        self._clock = clock
        self._addresses = addresses
        self.stats = NotifierStats()
        for address in addresses.reveal().split():
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise SettingError(VARIABLE, "takes http:// or https:// addresses, separated by spaces")

    async def run(self) -> None:
        """Until cancelled."""
        source = consume(
            self._bus, subjects.EVENTS_STREAM, durable=DURABLE, filter_subject=subjects.event(alarms.CHANGED)
        )
        timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            async for message in source:
                await self._take(message, client)

    async def _take(self, message: StoredMessage, client: aiohttp.ClientSession) -> None:
        try:
            event = Event.from_json(message.data)
            changed = ParseDict(dict(event.data), pb.AlarmChanged(), ignore_unknown_fields=True)
        except (InvalidDocument, ParseError) as error:
            log.error("an event cannot be read", subject=message.subject, reason=str(error))
            await message.term()
            return
        if self._clock().timestamp() - message.timestamp_ns / 1e9 > STALE_S:
            self.stats.stale += 1
            await message.ack()
            return
        if not wants_telling(changed):
            await message.ack()
            return
        addresses = self._addresses.reveal().split()
        body = json.dumps(notification(event, changed)).encode()
        problems = await asyncio.gather(*(_post(client, address, body, event.id) for address in addresses))
        failed = [problem for problem in problems if problem]
        if failed and message.delivered < ATTEMPTS_MAX:
            await message.nak(min(2.0**message.delivered, RETRY_MAX_S))
            return
        if failed:
            self.stats.failed += 1
            log.error("an alarm could not be told", alarm=event.subject, reasons=failed, failed=self.stats.failed)
        else:
            self.stats.delivered += 1
        await self._record(event, failed)
        await message.ack()

    async def _record(self, event: Event, failed: Sequence[str]) -> None:
        now_ms = int(self._clock().timestamp() * 1000)
        summary = f"Failed to notify: {'; '.join(failed)}" if failed else "Successfully notified the webhooks"
        async with self._database.session() as session, session.begin():
            row = await session.get(AlarmRow, (event.account, event.region, event.subject))
            if row is not None:
                data = {"version": "1.0", "eventId": event.id, "failed": list(failed)}
                await alarms.record(session, row, now_ms, pb.ALARM_HISTORY_KIND_ACTION, summary, data)


def wants_telling(changed: pb.AlarmChanged) -> bool:
    """Whether CloudWatch would act: actions are enabled, and there is one for the new state."""
    definition = changed.alarm.definition
    by_state = {
        pb.ALARM_STATE_OK: definition.ok_actions,
        pb.ALARM_STATE_ALARM: definition.alarm_actions,
        pb.ALARM_STATE_INSUFFICIENT_DATA: definition.insufficient_data_actions,
    }
    return definition.actions_enabled and bool(by_state.get(changed.alarm.state))


def notification(event: Event, changed: pb.AlarmChanged) -> dict[str, Any]:
    """The body: what CloudWatch sends through SNS."""
    alarm, definition, query = changed.alarm, changed.alarm.definition, changed.alarm.definition.query
    return {
        "AlarmName": definition.name,
        "AlarmDescription": definition.description or None,
        "AWSAccountId": event.account,
        "AlarmConfigurationUpdatedTimestamp": _time(alarm.configuration_updated),
        "NewStateValue": alarms.NAMES[alarm.state],
        "NewStateReason": alarm.state_reason,
        "StateChangeTime": _time(alarm.state_transitioned),
        "Region": event.region,
        "AlarmArn": alarm.arn,
        "OldStateValue": alarms.NAMES[changed.old_state],
        "OKActions": list(definition.ok_actions),
        "AlarmActions": list(definition.alarm_actions),
        "InsufficientDataActions": list(definition.insufficient_data_actions),
        "Trigger": {
            "MetricName": query.metric.name,
            "Namespace": query.metric.namespace,
            "StatisticType": "Statistic",
            "Statistic": pb.Statistic.Name(query.statistic).removeprefix("STATISTIC_"),
            "Unit": query.unit or None,
            "Dimensions": [{"name": name, "value": value} for name, value in sorted(query.metric.dimensions.items())],
            "Period": query.period_seconds,
            "EvaluationPeriods": definition.evaluation_periods,
            "DatapointsToAlarm": definition.datapoints_to_alarm or definition.evaluation_periods,
            "Threshold": definition.threshold,
        },
    }


async def _post(client: aiohttp.ClientSession, address: str, body: bytes, event_id: str) -> str:
    """Empty, or what went wrong: with the host's name and no more of the address, which may hold a secret."""
    host = urlsplit(address).hostname
    headers = {"Content-Type": "application/json", "X-Belvedere-Event": event_id}
    try:
        async with client.post(address, data=body, headers=headers, allow_redirects=False) as answer:
            return "" if 200 <= answer.status < 300 else f"{host} answered {answer.status}"
    except TimeoutError:
        return f"{host} did not answer within {POST_TIMEOUT_S:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{host} cannot be reached ({type(error).__name__})"


def _time(moment: Timestamp) -> str:
    return moment.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")
