"""Accounts, users, roles, access keys, login tokens, console sessions, audit trail."""

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("account"),
    )
    for table, name in (("user_account", "user_id"), ("role", "role_id")):
        op.create_table(
            table,
            sa.Column("account", sa.String(length=12), nullable=False),
            sa.Column("name", sa.String(length=64), nullable=False),
            sa.Column(name, sa.String(length=32), nullable=False),
            sa.Column("policies", sa.JSON(), nullable=False),
            sa.Column("created", UtcDateTime(), nullable=False),
            sa.PrimaryKeyConstraint("account", "name"),
            sa.ForeignKeyConstraint(["account"], ["account.account"], ondelete="CASCADE"),
            sa.UniqueConstraint(name),
        )
    op.create_table(
        "access_key",
        sa.Column("access_key_id", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("user_name", sa.String(length=64), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("access_key_id"),
    )
    op.create_index("ix_access_key_account", "access_key", ["account"])
    for table, name in (("login_token", "token_hash"), ("console_session", "session_hash")):
        op.create_table(
            table,
            sa.Column(name, sa.String(length=64), nullable=False),
            sa.Column("account", sa.String(length=12), nullable=False),
            sa.Column("user_name", sa.String(length=64), nullable=False),
            sa.Column("expires", UtcDateTime(), nullable=False),
            sa.PrimaryKeyConstraint(name),
        )
        op.create_index(f"ix_{table}_expires", table, ["expires"])
    op.create_table(
        "audit",
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("principal", sa.String(length=512), nullable=False),
        sa.Column("action", sa.String(length=128), nullable=False),
        sa.Column("resource", sa.String(length=2048), nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("source_address", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("position"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_at", "audit", ["at"])
