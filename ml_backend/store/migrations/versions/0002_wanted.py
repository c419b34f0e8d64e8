"""Components are wanted by a mark of their own, so that a known problem stays told meanwhile."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the mark; a note that nothing wrote leaves."""
    op.add_column(
        "components", sa.Column("wanted", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.execute("UPDATE components SET wanted = TRUE WHERE name IS NULL AND problem IS NULL")
    op.drop_column("components", "note")
