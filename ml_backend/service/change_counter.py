"""How many tasks there are to learn from, and how many of them a session has not learned.

A large project has a hundred thousand hashes and so has the manifest of its last session; both
are read only when something has happened since they were last compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ml_backend.domain import ProjectKey
from ml_backend.learning import Session
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.ledger_reading import Stamp
from ml_backend.store.sessions import Sessions

TASK_HASHES = "task_hashes"
"""The key of a session's manifest: what it learned from."""

NOT_FETCHED = "not_fetched"
"""The key of a session's manifest: tasks whose image could not be had, with their hashes."""

_COUNTS_KEPT = 256  # two numbers each
_MANIFESTS_KEPT = 4  # tens of megabytes each at the most


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What there is to learn, in tasks."""

    annotated: int  # in all
    changed: int  # new, changed or gone since a session looked at them


class ChangeCounter:
    """Counts changes; safe for many threads."""

    def __init__(self, ledger: AnnotationLedger, sessions: Sessions) -> None:
        """Keep the records."""
        self._ledger = ledger
        self._sessions = sessions
        self._count = lru_cache(maxsize=_COUNTS_KEPT)(self._count_anew)
        self._learned = lru_cache(maxsize=_MANIFESTS_KEPT)(self._read_learned)

    def since(
        self, project: ProjectKey, last: Session | None, *, last_change: float | None
    ) -> Changes:
        """Return what changed since a session, or ever.

        Args:
            project: Whose.
            last: The session that ended last; its manifest is not needed.
            last_change: When an annotation last changed, by our clock.

        Raises:
            StoreError
        """
        stamp = self._ledger.stamp(project)
        if last is None:
            return self._count(project, stamp, None, None, 0.0, last_change)
        looked_at = last.started_at or last.created_at
        return self._count(project, stamp, last.id, last.finished_at, looked_at, last_change)

    def _count_anew(
        self,
        project: ProjectKey,
        _stamp: Stamp,
        session_id: str | None,
        finished_at: float | None,
        looked_at: float,
        last_change: float | None,
    ) -> Changes:
        hashes = self._ledger.task_hashes(project)
        if session_id is None:
            return Changes(annotated=len(hashes), changed=len(hashes))
        learned = self._learned(session_id, finished_at)
        if learned is not None:
            changed = count_changed(learned, hashes)
        elif last_change is None or last_change > looked_at:
            changed = len(hashes)
        else:
            # it failed before it read them; trying again by itself helps only with something new
            changed = 0
        return Changes(annotated=len(hashes), changed=changed)

    def _read_learned(
        self, session_id: str, _finished_at: float | None
    ) -> Mapping[str, str] | None:
        """Return the hashes that a session learned from; it may have been resumed and end again."""
        session = self._sessions.get(session_id)
        learned = None if session is None else learned_by(session)
        if session is None or learned is None:
            return None
        # An image that is gone for good must not start a session after every pause; a person who
        # asks for a training has it tried again (`learned_by`).
        missing = session.manifest.get(NOT_FETCHED)
        return {**learned, **missing} if isinstance(missing, Mapping) else learned


def learned_by(session: Session) -> Mapping[str, str] | None:
    """Return the hash of each task as a session learned from it, None when it never got so far."""
    known = session.manifest.get(TASK_HASHES)
    return known if isinstance(known, Mapping) else None


def count_changed(learned: Mapping[str, str], hashes: Mapping[int, str]) -> int:
    """Return how many tasks are new, changed or gone."""
    now = ((str(task_id), text) for task_id, text in hashes.items())
    before = ((str(task_id), text) for task_id, text in learned.items())
    return _differences(now, before)


def _differences(now: Iterable[tuple[str, str]], before: Iterable[tuple[str, str]]) -> int:
    return len({task_id for task_id, _ in set(now) ^ set(before)})
