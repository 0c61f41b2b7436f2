"""Replacements that never deliver. An application that is to replace another has so long to deliver, counted from when
all of it was here; then it is given up, and the one it was to replace goes on as if nothing had been.

Knows the clock, and nothing of how anything is stopped: the plan leaves out what was given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from belvedere.fleet import DesiredState, DeviceReportedStatus, Reason, ReasonCode, Reported, Target

TRYING = frozenset(
    {DeviceReportedStatus.STARTING, DeviceReportedStatus.LAUNCH_ERROR, DeviceReportedStatus.INSTALL_ERROR}
)
"""States in which the time runs; fetching what is large takes as long as it takes."""


@dataclass
class Deliveries:
    """Who has been trying since when."""

    limit_s: float
    _since: dict[str, float] = field(default_factory=dict)

    def overdue(
        self, target: Target, reported: Reported, given_up: Iterable[str], now_s: float
    ) -> Mapping[str, Reason]:
        """Those whose time is over now, and why they have not delivered. `now_s`: any clock that does not step."""
        trying = dict(_trying(target, reported))
        for instance_id in given_up:
            trying.pop(instance_id, None)
        self._since = {instance_id: self._since.get(instance_id, now_s) for instance_id in trying}
        return {
            instance_id: reason or Reason(ReasonCode.APP_NO_OUTPUT, f"it has delivered nothing in {self.limit_s:g} s")
            for instance_id, reason in trying.items()
            if now_s - self._since[instance_id] >= self.limit_s
        }


def _trying(target: Target, reported: Reported) -> Iterable[tuple[str, Reason | None]]:
    for app in target.applications:
        old = target.application(app.replaces) if app.replaces else None
        now = reported.application(app.instance_id)
        if app.desired == DesiredState.RUNNING and old is not None and now is not None and now.state in TRYING:
            yield app.instance_id, now.reason
