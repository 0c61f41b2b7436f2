"""When alarms go off: the tables of CloudWatch's user guide, and what follows from its text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.chassis.errors import Invalid
from belvedere.v1 import logs_metrics_pb2 as pb
from services.logs_metrics.alarm_rules import (
    ALARM,
    INSUFFICIENT_DATA,
    OK,
    Rule,
    Window,
    breaches,
    check_definition,
    decide,
    explain,
    window,
)

STAYS = None
TREATMENTS = (
    pb.MISSING_DATA_MISSING,
    pb.MISSING_DATA_IGNORE,
    pb.MISSING_DATA_BREACHING,
    pb.MISSING_DATA_NOT_BREACHING,
)
POINTS = {"0": False, "X": True, "-": None}

# The guide's own rows first ("Configuring how CloudWatch alarms treat missing data"), by MISSING, IGNORE, BREACHING,
# NOT BREACHING; then those of its section on premature transitions.
THREE_OF_THREE = [
    ("0-X-X", (OK, OK, OK, OK)),
    ("----0", (OK, OK, OK, OK)),
    ("-----", (INSUFFICIENT_DATA, STAYS, ALARM, OK)),
    ("0XX-X", (ALARM, ALARM, ALARM, ALARM)),
    ("--X--", (ALARM, STAYS, ALARM, OK)),
    ("----X", (STAYS, STAYS, ALARM, OK)),
    ("---X-", (STAYS, STAYS, ALARM, OK)),
    ("---X0", (OK, OK, OK, OK)),
    ("--X-0", (OK, OK, OK, OK)),
    ("00XXX", (ALARM, ALARM, ALARM, ALARM)),
]
TWO_OF_THREE = [
    ("0-X-X", (ALARM, ALARM, ALARM, ALARM)),
    ("00X0X", (ALARM, ALARM, ALARM, ALARM)),
    ("0-X--", (OK, OK, ALARM, OK)),
    ("----0", (OK, OK, ALARM, OK)),
    ("---X-", (ALARM, STAYS, ALARM, OK)),
    ("XX000", (OK, OK, OK, OK)),
]


@pytest.mark.parametrize(("points", "expected"), THREE_OF_THREE)
def test_three_of_three_decides_as_the_guide_says(points: str, expected: tuple[int | None, ...]) -> None:
    breaching = [POINTS[point] for point in points]
    assert tuple(decide(breaching, Rule(3, 3, treat)) for treat in TREATMENTS) == expected


@pytest.mark.parametrize(("points", "expected"), TWO_OF_THREE)
def test_two_of_three_decides_as_the_guide_says(points: str, expected: tuple[int | None, ...]) -> None:
    breaching = [POINTS[point] for point in points]
    assert tuple(decide(breaching, Rule(3, 2, treat)) for treat in TREATMENTS) == expected


@given(st.lists(st.booleans(), min_size=3, max_size=7), st.integers(1, 3))
def test_with_all_data_there_the_newest_decide_and_the_treatment_does_not_matter(points: list[bool], m: int) -> None:
    expected = ALARM if sum(points[-3:]) >= m else OK
    assert {decide(points, Rule(3, m, treat)) for treat in TREATMENTS} == {expected}


@given(st.lists(st.sampled_from([None, False]), min_size=1, max_size=9), st.integers(1, 7))
def test_nothing_breaching_never_alarms_unless_missing_data_does(points: list[bool | None], periods: int) -> None:
    for treat in (pb.MISSING_DATA_MISSING, pb.MISSING_DATA_IGNORE, pb.MISSING_DATA_NOT_BREACHING):
        assert decide(points, Rule(periods, periods, treat)) != ALARM


@pytest.mark.parametrize(
    ("now", "period", "expected"),
    [
        (1000, 60, Window(540, 60, 7)),
        (1019, 60, Window(540, 60, 7)),
        (1020, 60, Window(600, 60, 7)),
        (10_000, 300, Window(7860, 300, 7)),
        (1019, 10, Window(940, 10, 7)),
    ],
)
def test_the_window_ends_with_the_last_full_minute_and_slides(now: int, period: int, expected: Window) -> None:
    assert window(now, period, 5) == expected
    assert expected.end_s <= now


@pytest.mark.parametrize(
    ("comparison", "below", "equal", "above"),
    [
        (pb.COMPARISON_OPERATOR_GREATER_THAN_OR_EQUAL_TO_THRESHOLD, False, True, True),
        (pb.COMPARISON_OPERATOR_GREATER_THAN_THRESHOLD, False, False, True),
        (pb.COMPARISON_OPERATOR_LESS_THAN_THRESHOLD, True, False, False),
        (pb.COMPARISON_OPERATOR_LESS_THAN_OR_EQUAL_TO_THRESHOLD, True, True, False),
    ],
)
def test_the_four_comparisons(comparison: int, below: bool, equal: bool, above: bool) -> None:
    assert [breaches(value, comparison, 1.0) for value in (0.5, 1.0, 1.5)] == [below, equal, above]


def definition(**changed: object) -> pb.AlarmDefinition:
    query = pb.MetricQuery(metric=pb.Metric(namespace="N", name="M"), period_seconds=60, statistic=pb.STATISTIC_SUM)
    values: dict[str, object] = {
        "name": "a",
        "query": query,
        "evaluation_periods": 5,
        "threshold": 1.0,
        "comparison": pb.COMPARISON_OPERATOR_LESS_THAN_THRESHOLD,
    }
    return pb.AlarmDefinition(**(values | changed))  # type: ignore[arg-type]


def test_the_reason_tells_the_datapoints_and_what_was_missing() -> None:
    at = Window(0, 60, 7)
    breaching = definition(missing_data=pb.MISSING_DATA_BREACHING)
    assert explain([None] * 7, at, breaching, ALARM) == (
        "Threshold Crossed: no datapoints were received for 5 periods and "
        "5 missing datapoints were treated as [Breaching]."
    )
    assert explain([None] * 7, at, definition(), INSUFFICIENT_DATA) == "Insufficient Data: 5 datapoints were unknown."
    assert explain([0.0] * 7, at, breaching, ALARM).startswith(
        "Threshold Crossed: 5 out of the last 5 datapoints [0.0 (01/01/70 00:06:00), 0.0 (01/01/70 00:05:00), "
    )
    text = explain([None] * 6 + [1.0], at, breaching, OK)
    assert "[1.0 (01/01/70 00:06:00)] was not less than the threshold (1.0)" in text
    assert text.endswith("4 missing datapoints were treated as [Breaching].")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": ""}, "AlarmName"),
        ({"evaluation_periods": 0}, "EvaluationPeriods"),
        ({"evaluation_periods": 1441}, "EvaluationPeriods"),
        ({"datapoints_to_alarm": 6}, "DatapointsToAlarm"),
        ({"comparison": 0}, "ComparisonOperator"),
        ({"query": pb.MetricQuery(metric=pb.Metric(namespace="N", name="M"), period_seconds=60)}, "Statistic"),
        ({"query": pb.MetricQuery(metric=pb.Metric(namespace="N", name="M"), period_seconds=45)}, "Period"),
        ({"query": pb.MetricQuery(metric=pb.Metric(name="M"), period_seconds=60)}, "Namespace"),
    ],
)
def test_an_alarm_that_could_never_be_evaluated_is_refused(changed: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_definition(definition(**changed))
    assert refused.value.fields[0][0] == field
