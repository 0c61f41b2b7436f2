"""When an alarm goes off: CloudWatch's evaluation of datapoints, present and missing. Pure.

    decide([None, False, True, True, True], rule)        # oldest first: a verdict, or None: the state stays

Sources: "Alarm evaluation", "Configuring how CloudWatch alarms treat missing data" and "Avoiding premature transitions to
alarm state" of the CloudWatch user guide; its two tables are among the tests. More datapoints are looked at than
EvaluationPeriods says (EXTRA_PERIODS): where some are missing, older real ones stand in for them, and only what is still
missing then is treated as TreatMissingData says.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from belvedere.chassis.errors import Invalid
from belvedere.v1 import logs_metrics_pb2 as pb
from services.logs_metrics import rules

EXTRA_PERIODS = 2
"""As in the guide's examples: EvaluationPeriods 3, range 5. It also bridges the minute by which an appliance's data may
be late."""
MINUTE_S = 60
HIGH_RESOLUTION_S = 10
"""How often alarms are evaluated whose period is shorter than a minute."""
DAY_S = 24 * 3600
SHOWN_DATAPOINTS = 5

OK, ALARM, INSUFFICIENT_DATA = pb.ALARM_STATE_OK, pb.ALARM_STATE_ALARM, pb.ALARM_STATE_INSUFFICIENT_DATA
COMPARISONS: Mapping[int, tuple[Callable[[float, float], bool], str]] = {
    pb.COMPARISON_OPERATOR_GREATER_THAN_OR_EQUAL_TO_THRESHOLD: (operator.ge, "greater than or equal to"),
    pb.COMPARISON_OPERATOR_GREATER_THAN_THRESHOLD: (operator.gt, "greater than"),
    pb.COMPARISON_OPERATOR_LESS_THAN_THRESHOLD: (operator.lt, "less than"),
    pb.COMPARISON_OPERATOR_LESS_THAN_OR_EQUAL_TO_THRESHOLD: (operator.le, "less than or equal to"),
}


@dataclass(frozen=True)
class Rule:
    """What decides."""

    periods: int
    to_alarm: int
    """How many of the periods must be breaching: M of N."""
    missing_data: int = pb.MISSING_DATA_MISSING


@dataclass(frozen=True)
class Window:
    """The time that is looked at: `count` periods of `period_s` from `start_s` on, the last one complete."""

    start_s: int
    period_s: int
    count: int

    @property
    def end_s(self) -> int:
        return self.start_s + self.period_s * self.count


def window(now_s: int, period_s: int, periods: int) -> Window:
    """Ends at the last full minute (full ten seconds, for short periods), whatever the period: it slides."""
    step = MINUTE_S if period_s >= MINUTE_S else HIGH_RESOLUTION_S
    count = periods + EXTRA_PERIODS
    return Window(now_s - now_s % step - period_s * count, period_s, count)


def value_of(statistic: int, total: float, minimum: float, maximum: float, count: float) -> float:
    """The statistic of a period that has samples."""
    by_statistic = {
        pb.STATISTIC_SAMPLE_COUNT: count,
        pb.STATISTIC_SUM: total,
        pb.STATISTIC_MINIMUM: minimum,
        pb.STATISTIC_MAXIMUM: maximum,
    }
    return by_statistic.get(statistic, rules.average(total, count))  # type: ignore[call-overload,no-any-return]


def breaches(value: float, comparison: int, threshold: float) -> bool:
    """Whether the value is on the wrong side of the threshold."""
    return COMPARISONS[comparison][0](value, threshold)


def decide(breaching: Sequence[bool | None], rule: Rule) -> int | None:
    """The state that the datapoints of a window ask for, oldest first, None where there is none; None: it stays."""
    real = [point for point in breaching if point is not None]
    if len(real) >= rule.periods:
        return _count(sum(real[-rule.periods :]), rule)
    bad, lacking = sum(real), rule.periods - len(real)
    match rule.missing_data:
        case pb.MISSING_DATA_BREACHING:
            return _count(bad + lacking, rule)
        case pb.MISSING_DATA_NOT_BREACHING:
            return _count(bad, rule)
    ignoring = rule.missing_data == pb.MISSING_DATA_IGNORE
    if not real:
        return None if ignoring else INSUFFICIENT_DATA
    if bad >= rule.to_alarm:
        return ALARM
    if bad < len(real):
        return OK
    # All there is breaches, and is too little to count: only time can have made it old enough.
    age = len(breaching) - next(i for i, point in enumerate(breaching) if point is not None)
    return ALARM if age >= rule.to_alarm and not ignoring else None


def _count(bad: int, rule: Rule) -> int:
    return ALARM if bad >= rule.to_alarm else OK


def explain(points: Sequence[float | None], at: Window, definition: pb.AlarmDefinition, state: int) -> str:
    """Why the alarm is in this state, in CloudWatch's words."""
    real = [(at.start_s + i * at.period_s, value) for i, value in enumerate(points) if value is not None]
    real = real[-definition.evaluation_periods :]
    lacking = definition.evaluation_periods - len(real)
    if not real and state == INSUFFICIENT_DATA:
        return f"Insufficient Data: {lacking} datapoint{'s were' if lacking > 1 else ' was'} unknown."
    treated = {pb.MISSING_DATA_BREACHING: "[Breaching]", pb.MISSING_DATA_NOT_BREACHING: "[NonBreaching]"}
    filled = f"{lacking} missing datapoint{'s were' if lacking > 1 else ' was'} treated as"
    how = treated.get(definition.missing_data, "[Missing]")
    if not real:
        return f"Threshold Crossed: no datapoints were received for {lacking} periods and {filled} {how}."
    comparison = COMPARISONS[definition.comparison][1]
    bad = [pair for pair in real if breaches(pair[1], definition.comparison, definition.threshold)]
    shown = bad if state == ALARM and bad else [pair for pair in real if pair not in bad] or real
    listed = ", ".join(f"{value} ({_time(second)})" for second, value in shown[-SHOWN_DATAPOINTS:][::-1])
    were = f"{'was' if len(shown) == 1 else 'were'} {'' if shown == bad else 'not '}{comparison}"
    needed = definition.datapoints_to_alarm or definition.evaluation_periods
    to = f"minimum {needed} datapoint{'s' if needed > 1 else ''} for OK -> ALARM transition"
    text = f"Threshold Crossed: {len(shown)} out of the last {definition.evaluation_periods} datapoints [{listed}]"
    text += f" {were} the threshold ({definition.threshold}) ({to})."
    return text if lacking <= 0 else f"{text[:-1]}; {filled} {how}."


def _time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%d/%m/%y %H:%M:%S")


def check_definition(definition: pb.AlarmDefinition) -> None:
    """Raises Invalid for an alarm that could never be evaluated."""
    query = definition.query
    rules.check_metric(query.metric.namespace, query.metric.name, query.metric.dimensions)
    if not 1 <= len(definition.name) <= 255:
        raise _invalid("AlarmName", "must have 1 to 255 characters")
    if query.period_seconds not in (10, 20, 30) and (query.period_seconds < 60 or query.period_seconds % 60):
        raise _invalid("Period", "must be 10, 20, 30 or a multiple of 60 seconds")
    if definition.evaluation_periods < 1:
        raise _invalid("EvaluationPeriods", "must be 1 at least")
    if not 0 <= definition.datapoints_to_alarm <= definition.evaluation_periods:
        raise _invalid("DatapointsToAlarm", "must be 1 at least and EvaluationPeriods at most")
    most = 7 * DAY_S if query.period_seconds >= 3600 else DAY_S
    if definition.evaluation_periods * query.period_seconds > most:
        raise _invalid("EvaluationPeriods", f"times Period must not be above {most} seconds")
    if definition.comparison not in COMPARISONS:
        raise _invalid("ComparisonOperator", "must be one of the four that compare with a threshold")
    if query.statistic == pb.STATISTIC_UNSPECIFIED:
        raise _invalid("Statistic", "is needed")


def _invalid(field: str, why: str) -> Invalid:
    return Invalid(f"{field} {why}.", fields=[(field, why)])
