"""When a replacement is given up."""

from __future__ import annotations

import pytest

from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    Reason,
    ReasonCode,
    Reported,
    ReportedApplication,
    Target,
)
from edge.agent.deliveries import Deliveries
from tests.edge.agent.documents import application, graph, target

A = graph()
WANTED = target(application("i-1", A, desired=DesiredState.REMOVED), application("i-2", A, replaces="i-1"), version=2)
DIED = Reason(ReasonCode.APP_EXITED, "exit code 1: ValueError")


def said(state: DeviceReportedStatus, reason: Reason | None = None) -> Reported:
    return Reported("device-test", 2, 0, "1", applications=(ReportedApplication("i-2", state, reason=reason),))


def overdue(deliveries: Deliveries, reported: Reported, now_s: float, wanted: Target = WANTED) -> dict[str, Reason]:
    return dict(deliveries.overdue(wanted, reported, (), now_s))


def test_a_replacement_that_does_not_deliver_in_its_time_is_given_up_with_the_reason() -> None:
    deliveries = Deliveries(300)
    assert overdue(deliveries, said(DeviceReportedStatus.STARTING), 1000) == {}
    assert overdue(deliveries, said(DeviceReportedStatus.LAUNCH_ERROR, DIED), 1299) == {}
    assert overdue(deliveries, said(DeviceReportedStatus.LAUNCH_ERROR, DIED), 1300) == {"i-2": DIED}


def test_one_without_a_reason_is_given_up_too() -> None:
    deliveries = Deliveries(1)
    overdue(deliveries, said(DeviceReportedStatus.STARTING), 0)
    given_up = overdue(deliveries, said(DeviceReportedStatus.STARTING), 1)["i-2"]
    assert (given_up.code, given_up.message) == (ReasonCode.APP_NO_OUTPUT, "it has delivered nothing in 1 s")


@pytest.mark.parametrize("state", [DeviceReportedStatus.INSTALL_IN_PROGRESS, DeviceReportedStatus.RUNNING])
def test_while_it_is_fetched_and_once_it_has_delivered_no_time_runs(state: DeviceReportedStatus) -> None:
    deliveries = Deliveries(10)
    overdue(deliveries, said(DeviceReportedStatus.STARTING), 0)
    assert overdue(deliveries, said(state), 100) == {}
    assert overdue(deliveries, said(DeviceReportedStatus.STARTING), 105) == {}
    assert set(overdue(deliveries, said(DeviceReportedStatus.STARTING), 115)) == {"i-2"}


def test_one_that_replaces_nothing_tries_for_ever_and_one_given_up_is_not_given_up_again() -> None:
    deliveries = Deliveries(1)
    for wanted in (target(application("i-2", A)), target(application("i-2", A, replaces="i-1"))):
        assert overdue(deliveries, said(DeviceReportedStatus.STARTING), 0, wanted) == {}
        assert overdue(deliveries, said(DeviceReportedStatus.STARTING), 9, wanted) == {}
    assert dict(deliveries.overdue(WANTED, said(DeviceReportedStatus.LAUNCH_ERROR, DIED), {"i-2"}, 99)) == {}
