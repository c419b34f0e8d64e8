"""Answers to starts that a caller gave a key: whoever asks again with it gets the same answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, update
from sqlalchemy.orm import Session

from ml_backend.errors import IdempotencyKeyReused, InProgress
from ml_backend.store.database import Database
from ml_backend.store.schema import IdempotencyRow
from ml_backend.store.upsert import insert_if_new

KEPT_S = 24 * 3600.0  # an answer, from the moment it was first asked for
WORK_S = 300.0  # without an answer; then whoever worked on it is taken for dead
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, kw_only=True)
class IdempotencyClaim:
    """The right and the duty to answer the first request that came with a key."""

    caller: str
    key: str
    since: float  # seconds since the epoch; tells this claim from a later one of the same key


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """What the first request was answered."""

    status: int  # of HTTP
    body: bytes  # JSON


class IdempotencyKeys:
    """The table of keys and answers."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def claim(self, caller: str, key: str, fingerprint: str) -> IdempotencyClaim | KeptAnswer:
        """Return the answer that was given before, or a claim: then the caller must work it out.

        Of any number of concurrent requests with one key exactly one gets the claim. It must end
        in `keep` or `give_up`; one that does neither can be claimed anew after `WORK_S`.

        Args:
            caller: Whose key it is; another's key of the same name is another key.
            key: As it came.
            fingerprint: Of the request: the same for the same request only.

        Raises:
            IdempotencyKeyReused: the key came with another request before.
            InProgress: the first request with it is being worked on.
            StoreError
        """
        while True:
            now = self._clock()
            with self._database.write() as session:
                found = _claim(session, caller, key, fingerprint, now)
            if found is not None:
                return found

    def keep(self, claim: IdempotencyClaim, answer: KeptAnswer) -> None:
        """Keep the answer for whoever asks again; nothing if the claim is another's by now.

        Raises:
            StoreError
        """
        values = {"status": answer.status, "answer": answer.body}
        with self._database.write() as session:
            session.execute(update(IdempotencyRow).where(_is_held(claim)).values(**values))

    def give_up(self, claim: IdempotencyClaim) -> None:
        """Free the key, because the request failed and may do at another try.

        Raises:
            StoreError
        """
        with self._database.write() as session:
            session.execute(delete(IdempotencyRow).where(_is_held(claim)))

    def prune(self) -> None:
        """Forget what is older than a day.

        Raises:
            StoreError
        """
        old = IdempotencyRow.created_at < self._clock() - KEPT_S
        with self._database.write() as session:
            session.execute(delete(IdempotencyRow).where(old))


def _claim(
    session: Session, caller: str, key: str, fingerprint: str, now: float
) -> IdempotencyClaim | KeptAnswer | None:
    """Return what came of it; None when the row vanished meanwhile and it must be tried again."""
    claim = IdempotencyClaim(caller=caller, key=key, since=now)
    fresh = {"fingerprint": fingerprint, "status": None, "answer": None, "created_at": now}
    if insert_if_new(session, IdempotencyRow, {"caller": caller, "key": key, **fresh}):
        return claim
    row = session.get(IdempotencyRow, (caller, key), with_for_update=True)
    if row is None:
        return None
    age_s = now - row.created_at
    if age_s > KEPT_S or (row.status is None and age_s > WORK_S):
        for name, value in fresh.items():
            setattr(row, name, value)
        return claim
    if row.fingerprint != fingerprint:
        raise IdempotencyKeyReused
    if row.status is None:
        raise InProgress(retry_after_s=RETRY_AFTER_S)
    return KeptAnswer(status=row.status, body=row.answer or b"")


def _is_held(claim: IdempotencyClaim) -> ColumnElement[bool]:
    return and_(
        IdempotencyRow.caller == claim.caller,
        IdempotencyRow.key == claim.key,
        IdempotencyRow.created_at == claim.since,
        IdempotencyRow.status.is_(None),
    )
