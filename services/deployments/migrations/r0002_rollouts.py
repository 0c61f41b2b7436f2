"""Rollouts and their devices."""

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollout",
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("client_token", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=False),
        sa.Column("device_tags", sa.JSON(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("role_arn", sa.String(length=255), nullable=False),
        sa.Column("phases", sa.JSON(), nullable=False),
        sa.Column("gates", sa.JSON(), nullable=False),
        sa.Column("max_failures", sa.Integer(), nullable=False),
        sa.Column("deliver_timeout_s", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("status_description", sa.String(length=1024), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False),
        sa.Column("phase_done", UtcDateTime(), nullable=True),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("updated", UtcDateTime(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id"),
    )
    op.create_index(op.f("ix_rollout_account"), "rollout", ["account"], unique=False)
    op.create_index(op.f("ix_rollout_status"), "rollout", ["status"], unique=False)
    op.create_table(
        "rollout_device",
        sa.Column("rollout_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("device_name", sa.String(length=255), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False),
        sa.Column("overrides", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("description", sa.String(length=1024), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.Column("instance_id", sa.String(length=64), nullable=False),
        sa.Column("previous_id", sa.String(length=64), nullable=False),
        sa.Column("back_id", sa.String(length=64), nullable=False),
        sa.Column("begun", UtcDateTime(), nullable=True),
        sa.Column("delivered", UtcDateTime(), nullable=True),
        sa.Column("updated", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.rollout_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("rollout_id", "position"),
    )
    op.create_index(op.f("ix_rollout_device_device_id"), "rollout_device", ["device_id"], unique=False)
