"""What the deployments service publishes and consumes.

published   deployments.instance.created · changed · removed
            data: applicationInstanceId name deviceId status statusDescription healthStatus roleArn ("": none)
            deployments.rollout.created · changed
            data: rolloutId name status statusDescription phase
            deployments.rollout_device.changed
            data: rolloutId deviceId status statusDescription applicationInstanceId
consumed    registry.device.enrolled    what waited for it is deployed
            registry.device.online      its last report counts again
            registry.device.offline     the health of its applications is not known
            registry.device.deleted     its applications are gone with it
            packages.camera.created     applications that use it get its new credentials
"""

from __future__ import annotations

from belvedere.bus.event import Event
from services.deployments.rollout_store import RolloutDeviceRow, RolloutRow
from services.deployments.store import InstanceRow

SOURCE = "/belvedere/deployments"
CREATED, CHANGED, REMOVED = (f"deployments.instance.{word}" for word in ("created", "changed", "removed"))

ROLLOUT_CREATED, ROLLOUT_CHANGED = "deployments.rollout.created", "deployments.rollout.changed"
ROLLOUT_DEVICE_CHANGED = "deployments.rollout_device.changed"


def instance(type: str, row: InstanceRow) -> Event:
    """An event about an instance."""
    data = {
        "applicationInstanceId": row.instance_id,
        "name": row.name,
        "deviceId": row.device_id,
        "status": row.status,
        "statusDescription": row.status_description,
        "healthStatus": row.health,
        "roleArn": row.role_arn,
    }
    return Event(type, SOURCE, row.instance_id, row.account, row.region, data)


def rollout(type: str, row: RolloutRow) -> Event:
    """An event about a rollout."""
    data = {
        "rolloutId": row.rollout_id,
        "name": row.name,
        "status": row.status,
        "statusDescription": row.status_description,
        "phase": row.phase,
    }
    return Event(type, SOURCE, row.rollout_id, row.account, row.region, data)


def rollout_device(of: RolloutRow, row: RolloutDeviceRow) -> Event:
    """An event about a device in a rollout."""
    data = {
        "rolloutId": row.rollout_id,
        "deviceId": row.device_id,
        "status": row.status,
        "statusDescription": row.description,
        "applicationInstanceId": row.instance_id,
    }
    return Event(ROLLOUT_DEVICE_CHANGED, SOURCE, row.device_id, of.account, of.region, data)
