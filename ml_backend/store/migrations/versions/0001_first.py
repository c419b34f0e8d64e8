"""The first tables: projects, components, releases, predictions, open requests, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _projects_and_components()
    _releases()
    _predictions()
    _events()


def _projects_and_components() -> None:
    op.create_table(
        "projects",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("project_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("hostname", sa.Text),
        sa.Column("access_token", sa.Text),
        sa.Column("label_config", sa.Text, nullable=False),
        sa.Column("label_config_error", sa.Text),
        sa.Column("last_seen", sa.Double, nullable=False),
    )
    op.create_index("projects_by_id", "projects", ["project_id", "created_at", "last_seen"])
    op.create_table(
        "components",
        sa.Column("requested", sa.Text, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("architecture", sa.Text),
        sa.Column("sha256", sa.Text),
        sa.Column("path", sa.Text),
        sa.Column("licence", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("problem", sa.Text),
        sa.Column("recorded_at", sa.Double, nullable=False),
    )


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("components", sa.LargeBinary, nullable=False),
        sa.Column("label_config", sa.Text, nullable=False),
        sa.Column("canonical_config", sa.LargeBinary, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "active_releases",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("activated_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["project", "version"], ["releases.project", "releases.version"]),
    )


def _predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("input_hash", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("retry_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("entry", sa.LargeBinary),
    )
    op.create_index("predictions_by_use", "predictions", ["state", "used_at", "size"])
    op.create_index(
        "predictions_undelivered", "predictions", ["project", "version", "state", "delivered"]
    )
    op.create_table(
        "open_requests",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("task_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
    )
    op.create_index("open_requests_by_task", "open_requests", ["project", "version", "task_id"])
    op.create_index("ix_open_requests_expires_at", "open_requests", ["expires_at"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
        sa.Column("job", sa.Text, nullable=False, unique=True),
        sa.Column("origin", sa.Text),
        sa.Column("project_id", sa.BigInteger),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("content_hash", name="events_content_hash"),
    )
    op.create_index("events_by_state", "events", ["state", "id"])
