"""Alarms and their history."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG = sa.BigInteger()
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "alarm",
        sa.Column("account", sa.String, primary_key=True),
        sa.Column("region", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("namespace", sa.String, nullable=False),
        sa.Column("metric_name", sa.String, nullable=False),
        sa.Column("dimensions", sa.String, nullable=False),
        sa.Column("period_s", sa.Integer, nullable=False),
        sa.Column("statistic", sa.Integer, nullable=False),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("evaluation_periods", sa.Integer, nullable=False),
        sa.Column("datapoints_to_alarm", sa.Integer, nullable=False),
        sa.Column("threshold", sa.Float, nullable=False),
        sa.Column("comparison", sa.Integer, nullable=False),
        sa.Column("missing_data", sa.Integer, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("actions_enabled", sa.Boolean, nullable=False),
        sa.Column("actions", sa.String, nullable=False),
        sa.Column("configured_ms", BIG, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("reason_data", sa.String, nullable=False),
        sa.Column("updated_ms", BIG, nullable=False),
        sa.Column("transitioned_ms", BIG, nullable=False),
    )
    op.create_table(
        "alarm_history",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("region", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("at_ms", BIG, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("summary", sa.String, nullable=False),
        sa.Column("data", sa.String, nullable=False),
    )
    op.create_index("alarm_history_order", "alarm_history", ["account", "region", "at_ms", "id"])
