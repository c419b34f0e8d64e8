"""What the management API keeps: tokens, datasets in folders, answers to repeated starts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables, and room in the sessions."""
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("last_used_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_index(
        "tokens_one_name",
        "tokens",
        ["name"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "datasets",
        sa.Column("number", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("source", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("caller", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("status", sa.BigInteger),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_index("idempotency_by_age", "idempotency", ["created_at"])
    op.create_table(
        "deleted_sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("deleted_at", sa.Double, nullable=False),
    )
    op.create_table(
        "trainers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    op.create_table(
        "toolkit_values",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("writer", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
    op.add_column("events", sa.Column("project", sa.Text))
    op.add_column("sessions", sa.Column("dataset", sa.Text))
    op.add_column("sessions", sa.Column("label", sa.Text))
    op.add_column("sessions", sa.Column("base", sa.Text))
    op.add_column("sessions", sa.Column("restarted_from", sa.Text))
    for state in ("queued", "running"):
        op.drop_index(f"sessions_one_{state}", "sessions")
        where = sa.text(f"state = '{state}' AND dataset IS NULL")
        op.create_index(
            f"sessions_one_{state}",
            "sessions",
            ["project", "target"],
            unique=True,
            sqlite_where=where,
            postgresql_where=where,
        )
