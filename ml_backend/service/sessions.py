"""Training sessions as people and programs handle them: find, stop, resume, delete.

The command line and the API do it here, on the same rows as the trainer, which looks for queued
sessions by itself. Nothing here imports a network library.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.callers import Caller, Role
from ml_backend.errors import BadRequest, Conflict, Forbidden, NotFound
from ml_backend.learning import (
    ENDED,
    TRANSITIONS,
    EpochPoint,
    Session,
    SessionState,
)
from ml_backend.service.project_names import find_project
from ml_backend.store.events import Event, split_ids
from ml_backend.store.projects import Projects
from ml_backend.store.session_filter import SessionFilter
from ml_backend.store.sessions import Sessions

DEFAULT_LIMIT, MAX_LIMIT = 50, 1000
SHORTEST_PREFIX = 4  # characters of a session's id that people may type instead of all


class TrainingDesk:
    """What can be asked about training sessions, and done with those that there are."""

    def __init__(self, projects: Projects, sessions: Sessions) -> None:
        self._projects = projects
        self._sessions = sessions

    def find(
        self,
        *,
        project: str | None = None,
        state: SessionState | None = None,
        also: SessionFilter | None = None,
        limit: int = DEFAULT_LIMIT,
        after: str | None = None,
    ) -> list[Session]:
        """Return sessions without their manifests, newest first.

        Args:
            project: As `find_project` takes it; None = of all.
            state: None = in any.
            also: What else they must be.
            limit: At most so many.
            after: Id of the session after which the list begins; None = at the newest.

        Raises:
            NotFound, BadRequest: there is no such project or session, or there are several.
            StoreError
        """
        key = None if project is None else find_project(self._projects, project).key
        last = None if after is None else self.get(after)
        return self._sessions.find(
            key, state, limit=limit, after=last, also=also, with_manifests=False
        )

    def get(self, session_id: str, *, with_manifest: bool = False) -> Session:
        """Return a session by its id or the beginning of it; its manifest only on request.

        Raises:
            NotFound: there is none.
            BadRequest: several begin so.
            StoreError
        """
        is_id = session_id.isascii() and session_id.isalnum()
        found_by_id = self._sessions.get(session_id, with_manifest=with_manifest) if is_id else None
        if found_by_id is not None:
            return found_by_id
        found = []
        if is_id and len(session_id) >= SHORTEST_PREFIX:
            found = self._sessions.beginning_with(session_id)
        if not found:
            raise NotFound(
                f"There is no session {session_id[:100]!r}; `ml-backend sessions list` shows all."
            )
        if len(found) > 1:
            raise BadRequest(f"Several sessions begin with {session_id!r}; write more of the id.")
        if not with_manifest:
            return found[0]
        return self._sessions.get(found[0].id) or found[0]

    def of_event(self, event: Event) -> list[Session]:
        """Return the sessions that a START_TRAINING led to; deleted ones are left out.

        They come without manifests: programs ask for them every second.

        Raises:
            StoreError
        """
        found = (
            self._sessions.get(session_id, with_manifest=False)
            for session_id in split_ids(event.session)
        )
        return [session for session in found if session is not None]

    def stop(self, session_id: str, *, by: Caller) -> Session:
        """Ask a session to stop; what it has learned so far stays and can be resumed.

        Raises:
            NotFound, BadRequest, StoreError
            Forbidden: it is another's.
            Conflict: it has ended.
        """
        session = self._own(session_id, by)
        if session.state in ENDED:
            raise Conflict(
                f"Session {session.id} has ended already ({session.state}); nothing is to be "
                "stopped."
            )
        return self._sessions.request_stop(session.id)

    def resume(self, session_id: str, *, by: Caller) -> Session:
        """Queue a session that was stopped or failed; it goes on from its last checkpoint.

        Raises:
            NotFound, BadRequest, StoreError
            Forbidden: it is another's.
            Conflict: it was neither stopped nor did it fail.
        """
        session = self._own(session_id, by)
        if SessionState.QUEUED not in TRANSITIONS[session.state]:
            raise Conflict(
                f"Session {session.id} is {session.state}; only one that was stopped or has "
                "failed can be resumed. `ml-backend sessions restart` makes a new one of it."
            )
        return self._sessions.resume(session.id)

    def delete(self, session_id: str, *, by: Caller) -> None:
        """Forget a session and its curves; the version that it made stays.

        A trainer removes its folder soon.

        Raises:
            NotFound, BadRequest, StoreError
            Forbidden: it is another's.
            Conflict: it is queued or running, or another one starts from its checkpoint.
        """
        self._sessions.delete(self._own(session_id, by).id)

    def curve(self, session_id: str) -> Sequence[EpochPoint]:
        """Return the points of a session's curves, by epoch.

        Raises:
            NotFound, BadRequest, StoreError
        """
        return self._sessions.curve(self.get(session_id).id)

    def curve_length(self, session_id: str) -> tuple[int, int]:
        """Return how many points a session's curves have, and the last one's epoch (0 for none).

        Args:
            session_id: All of it, for programs that ask every second.

        Raises:
            StoreError
        """
        return self._sessions.curve_length(session_id)

    def _own(self, session_id: str, by: Caller) -> Session:
        """Return a session that the caller may change: callers their own, admins all.

        Raises:
            NotFound, BadRequest, Forbidden, StoreError
        """
        session = self.get(session_id)
        if by.role is Role.ADMIN or (by.name is not None and session.owner == by.name):
            return session
        whose = f"belongs to {session.owner!r}" if session.owner else "was not started by a token"
        raise Forbidden(
            f"Session {session.id} {whose}; only its owner or somebody with the role admin may do "
            "that."
        )
