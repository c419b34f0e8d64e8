"""What classes of the label-studio-ml toolkit keep for each project: texts by key, bounded."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ml_backend.domain import ProjectKey
from ml_backend.errors import ToolkitError
from ml_backend.store.database import Database
from ml_backend.store.schema import ToolkitValueRow
from ml_backend.store.upsert import insert_if_new, insert_or_replace

LONGEST_KEY = 200  # characters
LONGEST_VALUE = 4 * 2**20  # characters; a network belongs into a file, and its path here
MOST_CHARACTERS = 16 * 2**20  # of a project
MOST_KEYS = 1000  # of a project
_COUNTER = ""


class ToolkitValues:
    """The table of values. Writers of one project take turns, so nothing is half written."""

    def __init__(
        self,
        database: Database,
        *,
        writer: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare it.

        Args:
            database: The records.
            writer: A name for this process that no other has; None = made up.
            clock: Seconds since the epoch.
        """
        self._database = database
        self._writer = writer or uuid.uuid4().hex
        self._clock = clock

    def get(self, project: ProjectKey, key: str) -> str | None:
        """Return a value, None where there is none.

        Raises:
            StoreError
        """
        with self._database.read() as transaction:
            row = transaction.get(ToolkitValueRow, (str(project), key)) if key else None
            return None if row is None else row.value

    def set(self, project: ProjectKey, key: str, value: str) -> None:
        """Keep a value; one that is there already is not written again.

        Raises:
            ToolkitError: the key is empty, or one of the bounds is exceeded.
            StoreError
        """
        _check(key, value)
        if self.get(project, key) == value:
            return
        name = str(project)
        with self._database.write() as transaction:
            revision = self._next_revision(transaction, name)
            self._check_room(transaction, name, key, value)
            insert_or_replace(
                transaction,
                ToolkitValueRow,
                {
                    "project": name,
                    "key": key,
                    "value": value.replace("\0", ""),  # PostgreSQL cannot hold it
                    "writer": self._writer,
                    "revision": revision,
                    "updated_at": self._clock(),
                },
            )

    def revision_of_others(self, project: ProjectKey) -> tuple[int, int]:
        """Return what changes whenever another process writes a value of a project.

        Raises:
            StoreError
        """
        query = select(func.count(), func.coalesce(func.max(ToolkitValueRow.revision), 0)).where(
            ToolkitValueRow.project == str(project),
            ToolkitValueRow.key != _COUNTER,
            ToolkitValueRow.writer != self._writer,
        )
        with self._database.read() as transaction:
            count, newest = transaction.execute(query).one()
        return count, newest

    def _next_revision(self, transaction: Session, project: str) -> int:
        counter = {
            "project": project,
            "key": _COUNTER,
            "value": "",
            "writer": self._writer,
            "revision": 0,
            "updated_at": self._clock(),
        }
        insert_if_new(transaction, ToolkitValueRow, counter)
        row = transaction.get_one(ToolkitValueRow, (project, _COUNTER), with_for_update=True)
        row.revision += 1
        return row.revision

    def _check_room(self, transaction: Session, project: str, key: str, value: str) -> None:
        query = select(
            func.count(), func.coalesce(func.sum(func.length(ToolkitValueRow.value)), 0)
        ).where(
            ToolkitValueRow.project == project,
            ToolkitValueRow.key != key,
            ToolkitValueRow.key != _COUNTER,
        )
        keys, characters = transaction.execute(query).one()
        if keys >= MOST_KEYS:
            raise ToolkitError(
                f"A project keeps at most {MOST_KEYS} values; set fewer keys, with more in each."
            )
        if characters + len(value) > MOST_CHARACTERS:
            raise ToolkitError(
                f"The values of a project may have {MOST_CHARACTERS} characters together; keep "
                "what is long in a file and set its path."
            )


def _check(key: str, value: str) -> None:
    if not 0 < len(key) <= LONGEST_KEY or "\0" in key:
        raise ToolkitError(
            f"A value's key has 1 to {LONGEST_KEY} characters, and this one has {len(key)}; "
            "choose another."
        )
    if len(value) > LONGEST_VALUE:
        raise ToolkitError(
            f"The value of {key!r} has {len(value)} characters and {LONGEST_VALUE} are allowed; "
            "keep it in a file and set its path."
        )
