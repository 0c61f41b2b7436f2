"""Application instances whose sessions are refused."""

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ended_instance",
        sa.Column("instance_id", sa.String(length=64), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id"),
    )
    op.create_index("ix_ended_instance_until", "ended_instance", ["until"])
