"""What projects serve instead of base networks, and how that has changed."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from ml_backend.domain import ProjectKey
from ml_backend.errors import StoreError
from ml_backend.learning import Activation, ActivationState
from ml_backend.store.activation_rows import (
    Serving,
    is_open,
    served_since,
    serving_from_json,
    to_activation,
)
from ml_backend.store.database import Database
from ml_backend.store.packing import from_json
from ml_backend.store.projects import parse_key
from ml_backend.store.schema import ActivationRow, ServingRow


class ActivationReading:
    """The reading half of the tables of activations and of what is served."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def serving(self, project: ProjectKey) -> dict[str, Serving]:
        """Return the trained network of each control that has one.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            return serving_in(session, project)

    def served_everywhere(self) -> dict[ProjectKey, dict[str, Serving]]:
        """Return `serving` of every project that serves trained networks.

        Raises:
            StoreError
        """
        query = select(ServingRow).order_by(ServingRow.project, ServingRow.control)
        found: dict[ProjectKey, dict[str, Serving]] = {}
        with self._database.read() as session:
            for row in session.scalars(query):
                of_project = found.setdefault(parse_key(row.project), {})
                of_project[row.control] = serving_from_json(from_json(row.serving))
        return found

    def under_way(self) -> list[Activation]:
        """Return the changes of all projects that are still to be done, the oldest first.

        Raises:
            StoreError
        """
        query = select(ActivationRow).where(is_open()).order_by(ActivationRow.id)
        with self._database.read() as session:
            return [to_activation(row) for row in session.scalars(query)]

    def history(self, project: ProjectKey) -> list[Activation]:
        """Return the changes of what `project` serves, the newest first.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            return [to_activation(row) for row in newest_first(session, project)]

    def served_since(self, activation_id: int) -> dict[str, Serving]:
        """Return all that was served from that activation on; empty: base networks only.

        Raises:
            StoreError: it is not done.
        """
        with self._database.read() as session:
            row = session.get(ActivationRow, activation_id)
            if row is None or row.state != ActivationState.DONE:
                raise StoreError(f"Activation {activation_id} was never done; see its message.")
            return served_since(row)


def newest_first(session: Session, project: ProjectKey) -> list[ActivationRow]:
    """Return the rows of a project's changes."""
    query = select(ActivationRow).where(ActivationRow.project == str(project))
    return list(session.scalars(query.order_by(ActivationRow.id.desc())))


def serving_in(session: Session, project: ProjectKey) -> dict[str, Serving]:
    """Return the trained network of each control that has one."""
    query = select(ServingRow).where(ServingRow.project == str(project))
    rows = session.scalars(query.order_by(ServingRow.control))
    return {row.control: serving_from_json(from_json(row.serving)) for row in rows}
