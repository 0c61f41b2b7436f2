"""Ports of a device: which of them its applications have opened. Knows rows and graphs, no gRPC."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.errors import Invalid
from belvedere.fleet import DesiredState
from belvedere.graph import ResolvedGraph
from services.deployments import store
from services.deployments.rules import Status


async def taken(session: AsyncSession, device_id: str, replaces: str = "") -> dict[int, str]:
    """Host port → who has it. The application that is to be replaced hands its ports on; one that is to go does not
    hold them any more."""
    found: dict[int, str] = {}
    for row in await store.live_on_device(session, device_id):
        if row.instance_id == replaces or row.desired == DesiredState.REMOVED or row.status == Status.DEPLOYMENT_FAILED:
            continue
        owner = f'application "{row.name}" ({row.instance_id})' if row.name else f"application {row.instance_id}"
        found.update(
            dict.fromkeys((rule.host_port for rule in ResolvedGraph.from_json(row.graph).network_rules), owner)
        )
    return found


def check(graph: ResolvedGraph, others: Mapping[int, str]) -> None:
    """Raises Invalid where the graph opens a port that somebody else has."""
    fields = [
        (
            "overrides.networkRoutingRules",
            f"{rule.host_port} is taken on this device by {others[rule.host_port]}: choose another",
        )
        for rule in graph.network_rules
        if rule.host_port in others
    ]
    if fields:
        raise Invalid("; ".join(f"{place}: {text}" for place, text in fields), fields=fields)
