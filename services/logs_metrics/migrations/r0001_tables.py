"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger()
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "device",
        sa.Column("device_id", sa.String, primary_key=True),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("region", sa.String, nullable=False),
    )
    op.create_table(
        "log_group",
        sa.Column("account", sa.String, primary_key=True),
        sa.Column("region", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("creation_ms", BIG, nullable=False),
        sa.Column("retention_days", sa.Integer, nullable=True),
    )
    op.create_table(
        "log_stream",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("region", sa.String, nullable=False),
        sa.Column("group_name", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("creation_ms", BIG, nullable=False),
        sa.Column("first_event_ms", BIG, nullable=True),
        sa.Column("last_event_ms", BIG, nullable=True),
        sa.Column("last_ingestion_ms", BIG, nullable=True),
        sa.Column("stored_bytes", BIG, nullable=False),
        sa.UniqueConstraint("account", "region", "group_name", "name"),
    )
    op.create_table(
        "log_event",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("stream_id", BIG, sa.ForeignKey("log_stream.id", ondelete="CASCADE"), nullable=False),
        sa.Column("timestamp_ms", BIG, nullable=False),
        sa.Column("sequence", BIG, nullable=False),
        sa.Column("origin", BIG, nullable=True),
        sa.Column("ingestion_ms", BIG, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.UniqueConstraint("stream_id", "origin"),
    )
    op.create_index("log_event_order", "log_event", ["stream_id", "timestamp_ms", "sequence", "id"])
    op.create_table(
        "metric",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("region", sa.String, nullable=False),
        sa.Column("namespace", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("dimensions", sa.String, nullable=False),
        sa.UniqueConstraint("account", "region", "namespace", "name", "dimensions"),
    )
    op.create_table(
        "metric_datum",
        sa.Column("metric_id", BIG, sa.ForeignKey("metric.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("timestamp_s", BIG, primary_key=True),
        sa.Column("unit", sa.String, primary_key=True),
        sa.Column("sum", sa.Float, nullable=False),
        sa.Column("minimum", sa.Float, nullable=False),
        sa.Column("maximum", sa.Float, nullable=False),
        sa.Column("sample_count", sa.Float, nullable=False),
    )
    op.create_table(
        "consumed",
        sa.Column("stream_sequence", BIG, primary_key=True, autoincrement=False),
        sa.Column("at_ms", BIG, nullable=False),
    )
    op.create_index("consumed_at", "consumed", ["at_ms"])
