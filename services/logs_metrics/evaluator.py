"""Evaluates alarms: every minute, and every ten seconds those with shorter periods.

Must not know gRPC. The clock is read in `run` only; `evaluate` is told the time. Alarms are read CHUNK at a time and
their data with one query a period, so that ten thousand alarms cost some hundred queries and not ten thousand.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import Database
from belvedere.chassis.logs import get_logger
from services.logs_metrics import alarm_rules, alarms, metrics
from services.logs_metrics.alarm_rules import HIGH_RESOLUTION_S, MINUTE_S, Rule, Window
from services.logs_metrics.alarms import Change, Key, Sums
from services.logs_metrics.store import AlarmRow

log = get_logger(__name__)

CHUNK = 100
CHANGES_CHUNK = 20
"""Changes in one transaction: when the whole fleet falls silent at once, writers of logs still get their turn."""
LONGEST_PERIOD_S = 8 * 24 * 3600
SETTLE_S = 1.0
"""After the full ten seconds: what was counted in them is being written."""


class Evaluator:
    """Holds alarms against their metrics."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._minute: int | None = None
        self.evaluated = 0
        """Alarms looked at since the start."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            now_s = self._clock().timestamp()
            await self.evaluate(int(now_s * 1000))
            await asyncio.sleep(HIGH_RESOLUTION_S - now_s % HIGH_RESOLUTION_S + SETTLE_S)

    async def evaluate(self, now_ms: int) -> int:
        """Once, as at `now_ms`; the alarms of a minute and more only in a minute's first call. Returns how many changed
        their state."""
        minute = now_ms // 1000 // MINUTE_S
        shorter_s = MINUTE_S if minute == self._minute else LONGEST_PERIOD_S
        self._minute = minute
        changed, after = 0, None
        while True:
            async with self._database.session(read_only=True) as session:
                rows = await alarms.due(session, shorter_s, after, CHUNK)
                wanted = await self._decide(session, rows, now_ms)
            for at in range(0, len(wanted), CHANGES_CHUNK):
                changed += await self._change(wanted[at : at + CHANGES_CHUNK])
            self.evaluated += len(rows)
            if len(rows) < CHUNK:
                return changed
            after = _key(rows[-1])

    async def _change(self, wanted: Sequence[tuple[AlarmRow, Change]]) -> int:
        """How many of the changes were made: the others have been made, or overtaken, by somebody else."""
        async with self._database.session() as session, session.begin():
            turned = [pair for pair in wanted if await alarms.change(session, *pair)]
        for row, change in turned:
            state = alarms.NAMES[change.state]
            log.info("alarm changed", alarm=row.name, account=row.account, state=state, reason=change.reason)
        return len(turned)

    async def _decide(
        self, session: AsyncSession, rows: Sequence[AlarmRow], now_ms: int
    ) -> list[tuple[AlarmRow, Change]]:
        if not rows:
            return []
        names = {(row.account, row.region, row.namespace, row.metric_name, row.dimensions) for row in rows}
        ids = await metrics.find_all(session, sorted(names))
        windows: dict[Window, list[tuple[AlarmRow, int | None]]] = {}
        for row in rows:
            metric = ids.get((row.account, row.region, row.namespace, row.metric_name, row.dimensions))
            at = alarm_rules.window(now_ms // 1000, row.period_s, row.evaluation_periods)
            windows.setdefault(at, []).append((row, metric))
        wanted = []
        for at, watching in windows.items():
            known = [metric for _, metric in watching if metric is not None]
            data = await alarms.sums(session, known, at) if known else {}
            by_metric: dict[int, dict[tuple[int, str], Sums]] = {}
            for (metric_id, index, unit), values in data.items():
                by_metric.setdefault(metric_id, {})[index, unit] = values
            for row, metric in watching:
                change = _judge(row, by_metric.get(metric, {}) if metric is not None else {}, at, now_ms)
                if change is not None:
                    wanted.append((row, change))
        return wanted


def _judge(row: AlarmRow, data: dict[tuple[int, str], Sums], at: Window, now_ms: int) -> Change | None:
    """The change that the data of its metric ask of an alarm, None where it stays as it is."""
    by_period: dict[int, Sums] = {}
    for (index, unit), values in data.items():
        if row.unit in ("", unit):
            by_period[index] = alarms.joined(by_period.get(index), values)
    points = [
        alarm_rules.value_of(row.statistic, *by_period[index]) if index in by_period else None
        for index in range(at.count)
    ]
    breaching = [None if p is None else alarm_rules.breaches(p, row.comparison, row.threshold) for p in points]
    rule = Rule(row.evaluation_periods, row.datapoints_to_alarm or row.evaluation_periods, row.missing_data)
    state = alarm_rules.decide(breaching, rule)
    if state is None or state == row.state:
        return None
    reason = alarm_rules.explain(points, at, alarms.definition_of(row), state)
    return Change(state, reason, _reason_data(row, points, at, now_ms), now_ms)


def _reason_data(row: AlarmRow, points: Sequence[float | None], at: Window, now_ms: int) -> str:
    recent = points[-row.evaluation_periods :]
    data = {
        "version": "1.0",
        "queryDate": _iso(now_ms / 1000),
        "startDate": _iso(at.end_s - len(recent) * at.period_s),
        "period": at.period_s,
        "threshold": row.threshold,
        "recentDatapoints": [point for point in recent if point is not None],
        "evaluatedDatapoints": [
            {"timestamp": _iso(at.start_s + i * at.period_s)} | ({} if p is None else {"value": p})
            for i, p in enumerate(points)
            if i >= at.count - row.evaluation_periods
        ],
    }
    return json.dumps(data)


def _iso(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")


def _key(row: AlarmRow) -> Key:
    return row.account, row.region, row.name
