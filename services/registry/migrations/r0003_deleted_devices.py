"""Devices that were deleted, with the keys that their appliances still sign with."""

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deleted_device",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("nats_public_key", sa.String(length=64), nullable=False),
        sa.Column("deleted", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("device_id"),
    )
