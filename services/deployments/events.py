"""What the deployments service publishes and consumes.

published   deployments.instance.created · changed · removed
            data: applicationInstanceId name deviceId status statusDescription healthStatus
consumed    registry.device.enrolled    what waited for it is deployed
            registry.device.online      its last report counts again
            registry.device.offline     the health of its applications is not known
            registry.device.deleted     its applications are gone with it
            packages.camera.created     applications that use it get its new credentials
"""

from __future__ import annotations

from belvedere.bus.event import Event
from services.deployments.store import InstanceRow

SOURCE = "/belvedere/deployments"
CREATED, CHANGED, REMOVED = (f"deployments.instance.{word}" for word in ("created", "changed", "removed"))


def instance(type: str, row: InstanceRow) -> Event:
    """An event about an instance."""
    data = {
        "applicationInstanceId": row.instance_id,
        "name": row.name,
        "deviceId": row.device_id,
        "status": row.status,
        "statusDescription": row.status_description,
        "healthStatus": row.health,
    }
    return Event(type, SOURCE, row.instance_id, row.account, row.region, data)
