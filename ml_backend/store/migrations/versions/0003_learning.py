"""What the learning loop keeps: ledger, splits, sessions, versions, activations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables, and room for what they need of older ones."""
    op.add_column("components", sa.Column("diameter", sa.Double))
    op.add_column("events", sa.Column("session", sa.Text))
    _ledger()
    _sessions()
    _versions()
    _activations()


def _ledger() -> None:
    op.create_table(
        "ledger_tasks",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("removed_at", sa.Double),
        sa.Column("heard_at", sa.Double, nullable=False),
        sa.Column("data_hash", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary),
    )
    op.create_table(
        "ledger_annotations",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.BigInteger),
        sa.Column("alive", sa.Boolean, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("removed_at", sa.Double),
        sa.Column("heard_at", sa.Double, nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.Column("ground_truth", sa.Boolean, nullable=False),
        sa.Column("completed_by", sa.BigInteger),
        sa.Column("parent_prediction", sa.BigInteger),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("problem", sa.Text),
    )
    op.create_index("ledger_annotations_by_task", "ledger_annotations", ["project", "task_id"])
    op.create_table(
        "ledger_results",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("result", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "splits",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("group_name", sa.Text, primary_key=True),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("decided_at", sa.Double, nullable=False),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("parameters", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("heartbeat_at", sa.Double),
        sa.Column("lease", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("stop_requested", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("progress", sa.LargeBinary, nullable=False),
        sa.Column("report", sa.LargeBinary),
        sa.Column("manifest", sa.LargeBinary),
    )
    op.create_index("sessions_by_project", "sessions", ["project", "target", "created_at"])
    op.create_index("sessions_by_state", "sessions", ["state", "created_at"])
    for state in ("queued", "running"):
        op.create_index(
            f"sessions_one_{state}",
            "sessions",
            ["project", "target"],
            unique=True,
            sqlite_where=sa.text(f"state = '{state}'"),
            postgresql_where=sa.text(f"state = '{state}'"),
        )
    op.create_table(
        "session_points",
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("point", sa.LargeBinary, nullable=False),
    )


def _versions() -> None:
    op.create_table(
        "versions",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("controls", sa.LargeBinary, nullable=False),
        sa.Column("component", sa.LargeBinary, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("metrics", sa.LargeBinary, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("base_requested", sa.Text),
    )
    op.create_table(
        "version_numbers",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
    )


def _activations() -> None:
    op.create_table(
        "serving",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("control", sa.Text, primary_key=True),
        sa.Column("serving", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "activations",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("release", sa.Text),
        sa.Column("components", sa.LargeBinary, nullable=False),
        sa.Column("removed", sa.LargeBinary, nullable=False),
        sa.Column("origins", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("served", sa.LargeBinary),
        sa.Column("restores", sa.BigInteger),
    )
    op.create_index("activations_by_project", "activations", ["project", "id"])
    op.create_index("activations_by_state", "activations", ["state", "id"])
