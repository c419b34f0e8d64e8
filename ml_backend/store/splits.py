"""On which side of the split each group of tasks stays: decided once, never changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from ml_backend.domain import ProjectKey
from ml_backend.learning import Side
from ml_backend.store.database import Database
from ml_backend.store.schema import SplitRow
from ml_backend.store.upsert import insert_if_new


class Splits:
    """The table of decisions about groups."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def sides(self, project: ProjectKey) -> dict[str, Side]:
        """Return the side of every group that was decided about.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            return _sides(session, project)

    def decide(self, project: ProjectKey, sides: Mapping[str, Side]) -> dict[str, Side]:
        """Keep a side for each group that has none yet; return what holds for all of `sides`.

        Of two sessions that decide at once the first is followed by both.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            known = _sides(session, project)
        if sides.keys() - known.keys():
            with self._database.write() as session:
                for group in sorted(sides.keys() - known.keys()):  # in one order: no deadlock
                    values = {
                        "project": str(project),
                        "group_name": group,
                        "side": sides[group],
                        "decided_at": self._clock(),
                    }
                    insert_if_new(session, SplitRow, values)
                known = _sides(session, project)
        return {group: known[group] for group in sides}


def _sides(session: Session, project: ProjectKey) -> dict[str, Side]:
    query = select(SplitRow.group_name, SplitRow.side).where(SplitRow.project == str(project))
    return {group: Side(side) for group, side in session.execute(query)}
