"""A device's standing in its row, and an index for every order in which devices are listed."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("device", sa.Column("standing", sa.String(length=32), nullable=False, server_default=""))
    connection = op.get_bind()
    device = sa.table(
        "device",
        *map(sa.column, ("device_id", "provisioning", "connected", "latest_job", "standing")),
    )
    for row in connection.execute(sa.select(device)).all():
        change = device.update().where(device.c.device_id == row.device_id).values(standing=_standing(row))
        connection.execute(change)
    for name, columns in (
        ("device_by_created", ["created", "device_id"]),
        ("device_by_id", ["device_id"]),
        ("device_by_standing_created", ["standing", "created", "device_id"]),
        ("device_by_standing_id", ["standing", "device_id"]),
        ("device_by_standing_name", ["standing", "name"]),
    ):
        op.create_index(name, "device", ["account", "region", *columns])


def _standing(row: Any) -> str:
    """As `rules.standing` was when this was written."""
    if row.provisioning != "SUCCEEDED":
        return str(row.provisioning)
    job = json.loads(row.latest_job) if isinstance(row.latest_job, str) else row.latest_job
    if job and job.get("status") == "REBOOTING":
        return "REBOOTING"
    return "ONLINE" if row.connected else "OFFLINE"
