"""Instances and the packages they use."""

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "instance",
        sa.Column("instance_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("device_name", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=False),
        sa.Column("role_arn", sa.String(length=255), nullable=False),
        sa.Column("replaces", sa.String(length=64), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("overrides", sa.Text(), nullable=False),
        sa.Column("graph", sa.Text(), nullable=False),
        sa.Column("graph_digest", sa.String(length=80), nullable=False),
        sa.Column("paused", sa.JSON(), nullable=False),
        sa.Column("desired", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("status_description", sa.String(length=255), nullable=False),
        sa.Column("health", sa.String(length=16), nullable=False),
        sa.Column("device_state", sa.String(length=32), nullable=False),
        sa.Column("target_version", sa.BigInteger(), nullable=True),
        sa.Column("reported", UtcDateTime(), nullable=True),
        sa.Column("node_status", sa.JSON(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("updated", UtcDateTime(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id"),
    )
    op.create_index(op.f("ix_instance_account"), "instance", ["account"], unique=False)
    op.create_index(op.f("ix_instance_device_id"), "instance", ["device_id"], unique=False)
    op.create_index(op.f("ix_instance_status"), "instance", ["status"], unique=False)
    op.create_table(
        "package_use",
        sa.Column("instance_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("package_name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("patch", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.instance_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("instance_id", "position"),
    )
    op.create_index(op.f("ix_package_use_package_name"), "package_use", ["package_name"], unique=False)
