"""Requests that Label Studio waits for, so that a push never adds a second row to a task."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection

from sqlalchemy import delete, select, update

from ml_backend.store.database import Database
from ml_backend.store.schema import OpenRequestRow

_CHUNK = 500


class OpenRequests:
    """The table of tasks in open requests."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def open(
        self, project: str, version: str, task_ids: Collection[int], *, expires_s: float
    ) -> str:
        """Note that Label Studio asked for these tasks; returns the request's id for `close`.

        It counts as closed after `expires_s`, should its process die.

        Raises:
            StoreError
        """
        now = self._clock()
        request_id = uuid.uuid4().hex
        with self._database.write() as session:
            session.execute(delete(OpenRequestRow).where(OpenRequestRow.expires_at <= now))
            session.add_all(
                OpenRequestRow(
                    request_id=request_id,
                    task_id=task_id,
                    project=project,
                    version=version,
                    expires_at=now + expires_s,
                )
                for task_id in set(task_ids)
            )
        return request_id

    def close(self, request_id: str, *, grace_s: float = 0.0) -> None:
        """Note that the request was answered; its tasks stay open for another `grace_s`.

        Label Studio stores an answer only after it has come, hence the grace.

        Raises:
            StoreError
        """
        of_request = OpenRequestRow.request_id == request_id
        with self._database.write() as session:
            if grace_s > 0:
                until = self._clock() + grace_s
                session.execute(update(OpenRequestRow).where(of_request).values(expires_at=until))
            else:
                session.execute(delete(OpenRequestRow).where(of_request))

    def is_open(self, project: str, version: str, task_ids: Collection[int]) -> set[int]:
        """Return those of `task_ids` that an open request of that version asks for.

        Raises:
            StoreError
        """
        wanted = list(set(task_ids))
        found: set[int] = set()
        with self._database.read() as session:
            for start in range(0, len(wanted), _CHUNK):
                query = select(OpenRequestRow.task_id).where(
                    OpenRequestRow.project == project,
                    OpenRequestRow.version == version,
                    OpenRequestRow.task_id.in_(wanted[start : start + _CHUNK]),
                    OpenRequestRow.expires_at > self._clock(),
                )
                found.update(session.scalars(query))
        return found
