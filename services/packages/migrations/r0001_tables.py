"""Packages, versions, nodes, cameras, template jobs, objects."""

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "object",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("bucket", sa.String(length=255), nullable=False),
        sa.Column("key", sa.String(length=1024), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.String(length=128), nullable=False),
        sa.Column("content_type", sa.String(length=255), nullable=False),
        sa.Column("user_metadata", sa.JSON(), nullable=False),
        sa.Column("modified", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("account", "region", "bucket", "key"),
    )
    op.create_table(
        "package",
        sa.Column("package_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("package_id"),
        sa.UniqueConstraint("account", "region", "name"),
    )
    op.create_table(
        "template_job",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("node_name", sa.String(length=128), nullable=False),
        sa.Column("node_description", sa.String(length=255), nullable=True),
        sa.Column("package_name", sa.String(length=128), nullable=False),
        sa.Column("package_version", sa.String(length=255), nullable=False),
        sa.Column("template_type", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("job_tags", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("updated", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index(op.f("ix_template_job_account"), "template_job", ["account"], unique=False)
    op.create_table(
        "camera",
        sa.Column("package_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("patch", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("stream_url", sa.Text(), nullable=False),
        sa.Column("credentials", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["package_id"], ["package.package_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("package_id", "version", "patch"),
    )
    op.create_table(
        "node",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("node_id", sa.String(length=512), nullable=False),
        sa.Column("package_id", sa.String(length=64), nullable=False),
        sa.Column("package_name", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("patch", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("category", sa.String(length=32), nullable=False),
        sa.Column("asset_name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("updated", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["package_id"], ["package.package_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account", "region", "node_id"),
    )
    op.create_index(op.f("ix_node_package_id"), "node", ["package_id"], unique=False)
    op.create_table(
        "package_version",
        sa.Column("package_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("patch", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("status_description", sa.String(length=255), nullable=False),
        sa.Column("registered", UtcDateTime(), nullable=False),
        sa.Column("latest", sa.Boolean(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("assets", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["package_id"], ["package.package_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("package_id", "version", "patch"),
    )
