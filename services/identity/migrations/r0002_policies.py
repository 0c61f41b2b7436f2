"""Policies that are attached in place of ones that lie in users and roles; trust policies; what became of access keys."""

import json

import sqlalchemy as sa
from alembic import op

from belvedere.chassis.database import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Until now there was one user and one role an account, each with one policy.
ADMINISTRATOR_ACCESS = "arn:aws:iam::aws:policy/AdministratorAccess"
APPLICATION_ACCESS = "arn:aws:iam::aws:policy/belvedere/BelvedereApplicationAccess"


def upgrade() -> None:
    op.create_table(
        "policy",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("updated", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("account", "name"),
        sa.ForeignKeyConstraint(["account"], ["account.account"], ondelete="CASCADE"),
    )
    op.create_table(
        "attachment",
        sa.Column("account", sa.String(length=12), nullable=False),
        sa.Column("kind", sa.String(length=4), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("policy_arn", sa.String(length=256), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "kind", "name", "policy_arn"),
        sa.ForeignKeyConstraint(["account"], ["account.account"], ondelete="CASCADE"),
    )
    op.create_index("ix_attachment_policy_arn", "attachment", ["policy_arn"])
    connection = op.get_bind()
    for kind, table, arn in (("user", "user_account", ADMINISTRATOR_ACCESS), ("role", "role", APPLICATION_ACCESS)):
        select = f"SELECT account, :kind, name, :arn, 0 FROM {table}"
        insert = sa.text(f"INSERT INTO attachment (account, kind, name, policy_arn, position) {select}")
        connection.execute(insert, {"kind": kind, "arn": arn})
        op.drop_column(table, "policies")

    op.add_column("user_account", sa.Column("tokens_from", UtcDateTime(), nullable=True))
    op.add_column("role", sa.Column("trust", sa.JSON(), nullable=False, server_default="{}"))
    for (account,) in connection.execute(sa.text("SELECT DISTINCT account FROM role")).all():
        connection.execute(
            sa.text("UPDATE role SET trust = :trust WHERE account = :account"),
            {"trust": json.dumps(_trust(account)), "account": account},
        )
    op.add_column("access_key", sa.Column("active", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("access_key", sa.Column("last_used", UtcDateTime(), nullable=True))
    for column, length in (("last_used_service", 64), ("last_used_region", 32)):
        op.add_column("access_key", sa.Column(column, sa.String(length=length), nullable=False, server_default=""))
    op.create_index("ix_audit_principal", "audit", ["principal"])


def _trust(account: str) -> dict[str, object]:
    principal = {"Service": "panorama.amazonaws.com", "AWS": f"arn:aws:iam::{account}:root"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}
