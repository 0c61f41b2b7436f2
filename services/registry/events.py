"""What the registry publishes: `belvedere.events.registry.device.…`, data: deviceId name.

registry.device.provisioned   there is a device, its appliance has not come yet
registry.device.enrolled      its appliance has taken its identity: its public keys are known
registry.device.online        it is connected and alive
registry.device.offline       it is not
registry.device.deleted       it is gone, its credentials are worth nothing

On the bus it hears `up.<id>.heartbeat`, `up.<id>.lease`, the bucket `reported` and the system account's events: presence.
"""

from __future__ import annotations

from belvedere.bus.event import Event
from services.registry.store import DeviceRow

SOURCE = "/belvedere/registry"


def device(happened: str, row: DeviceRow) -> Event:
    """`happened`: provisioned, enrolled, online, offline, deleted."""
    data = {"deviceId": row.device_id, "name": row.name}
    return Event(f"registry.device.{happened}", SOURCE, row.device_id, row.account, row.region, data)
