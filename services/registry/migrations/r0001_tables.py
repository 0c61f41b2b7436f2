"""Devices."""

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("networking_configuration", sa.JSON(), nullable=True),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("updated", UtcDateTime(), nullable=False),
        sa.Column("provisioning", sa.String(length=32), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("token_expires", UtcDateTime(), nullable=False),
        sa.Column("account_public_key", sa.String(length=64), nullable=False),
        sa.Column("nats_public_key", sa.String(length=64), nullable=False),
        sa.Column("seal_public_key", sa.LargeBinary(), nullable=False),
        sa.Column("serial_number", sa.String(length=20), nullable=False),
        sa.Column("software_version", sa.String(length=255), nullable=False),
        sa.Column("lease_expires", UtcDateTime(), nullable=True),
        sa.Column("connected", sa.Boolean(), nullable=False),
        sa.Column("connection_changed", UtcDateTime(), nullable=True),
        sa.Column("networking", sa.JSON(), nullable=True),
        sa.Column("networking_at", UtcDateTime(), nullable=True),
        sa.Column("latest_job", sa.JSON(), nullable=True),
        sa.Column("video", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
        sa.UniqueConstraint("account", "region", "name"),
        sa.UniqueConstraint("account_public_key"),
    )
