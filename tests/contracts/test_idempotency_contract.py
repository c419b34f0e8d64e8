"""What keys of starts promise on every database."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_backend.errors import IdempotencyKeyReused, InProgress
from ml_backend.store.database import Database
from ml_backend.store.idempotency import (
    KEPT_S,
    WORK_S,
    IdempotencyClaim,
    IdempotencyKeys,
    KeptAnswer,
)
from tests.fakes import ManualClock

ANSWER = KeptAnswer(status=202, body=b'{"id": "1"}')


def claimed(keys: IdempotencyKeys, key: str = "k", fingerprint: str = "f") -> IdempotencyClaim:
    """Return the claim of the first request."""
    claim = keys.claim("anna", key, fingerprint)
    assert isinstance(claim, IdempotencyClaim)
    return claim


class TestIdempotencyKeys:
    def test_the_same_request_again_gets_the_first_answer(self, database: Database) -> None:
        keys = IdempotencyKeys(database)
        keys.keep(claimed(keys), ANSWER)

        assert keys.claim("anna", "k", "f") == ANSWER
        assert keys.claim("anna", "k", "f") == ANSWER

    def test_a_key_is_its_callers_only(self, database: Database) -> None:
        keys = IdempotencyKeys(database)
        keys.keep(claimed(keys), ANSWER)

        assert isinstance(keys.claim("bert", "k", "g"), IdempotencyClaim)
        assert isinstance(keys.claim("anna", "K", "g"), IdempotencyClaim)

    @pytest.mark.parametrize("is_answered", [True, False])
    def test_another_request_with_the_key_is_refused(
        self, database: Database, is_answered: bool
    ) -> None:
        keys = IdempotencyKeys(database)
        claim = claimed(keys)
        if is_answered:
            keys.keep(claim, ANSWER)

        with pytest.raises(IdempotencyKeyReused):
            keys.claim("anna", "k", "other")

    def test_what_is_being_worked_on_must_be_waited_for(self, database: Database) -> None:
        keys = IdempotencyKeys(database)
        claimed(keys)

        with pytest.raises(InProgress) as raised:
            keys.claim("anna", "k", "f")

        assert raised.value.retry_after_s > 0

    def test_a_request_that_failed_does_not_bind_its_key(self, database: Database) -> None:
        keys = IdempotencyKeys(database)
        keys.give_up(claimed(keys))

        assert isinstance(keys.claim("anna", "k", "another"), IdempotencyClaim)

    def test_whoever_died_at_work_is_succeeded_and_cannot_write_any_more(
        self, database: Database
    ) -> None:
        clock = ManualClock()
        keys = IdempotencyKeys(database, clock=clock)
        dead = claimed(keys)
        clock.forward(WORK_S + 1)
        successor = claimed(keys)

        keys.keep(dead, KeptAnswer(status=200, body=b"late"))
        keys.give_up(dead)
        with pytest.raises(InProgress):
            keys.claim("anna", "k", "f")
        keys.keep(successor, ANSWER)

        assert keys.claim("anna", "k", "f") == ANSWER

    def test_an_answer_is_not_given_up_afterwards(self, database: Database) -> None:
        keys = IdempotencyKeys(database)
        claim = claimed(keys)
        keys.keep(claim, ANSWER)

        keys.give_up(claim)

        assert keys.claim("anna", "k", "f") == ANSWER

    def test_a_day_later_the_key_is_free(self, database: Database) -> None:
        clock = ManualClock()
        keys = IdempotencyKeys(database, clock=clock)
        keys.keep(claimed(keys), ANSWER)
        clock.forward(KEPT_S)
        kept = keys.claim("anna", "k", "f")
        clock.forward(1)

        assert kept == ANSWER
        assert isinstance(keys.claim("anna", "k", "another"), IdempotencyClaim)

    def test_pruning_forgets_what_is_older_than_a_day(self, database: Database) -> None:
        clock = ManualClock()
        keys = IdempotencyKeys(database, clock=clock)
        for key in ("old", "older"):
            keys.keep(claimed(keys, key), ANSWER)
        clock.forward(KEPT_S)
        keys.keep(claimed(keys, "new"), ANSWER)
        clock.forward(1)

        keys.prune()
        clock.forward(-1)  # else their age would free them as well

        assert keys.claim("anna", "new", "f") == ANSWER
        assert isinstance(keys.claim("anna", "old", "f"), IdempotencyClaim)

    def test_of_many_at_once_exactly_one_works(self, database: Database) -> None:
        start = threading.Barrier(8)

        def claim() -> str:
            keys = IdempotencyKeys(database)
            start.wait()
            try:
                return type(keys.claim("anna", "k", "f")).__name__
            except InProgress:
                return "waits"

        with ThreadPoolExecutor(8) as pool:
            came = Counter(done.result() for done in [pool.submit(claim) for _ in range(8)])

        assert came == {"IdempotencyClaim": 1, "waits": 7}

    def test_of_many_that_succeed_a_dead_one_exactly_one_works(self, database: Database) -> None:
        claimed(IdempotencyKeys(database, clock=ManualClock(0.0)))
        start = threading.Barrier(8)

        def claim() -> str:
            keys = IdempotencyKeys(database, clock=ManualClock(WORK_S + 1))
            start.wait()
            try:
                return type(keys.claim("anna", "k", "f")).__name__
            except InProgress:
                return "waits"

        with ThreadPoolExecutor(8) as pool:
            came = Counter(done.result() for done in [pool.submit(claim) for _ in range(8)])

        assert came == {"IdempotencyClaim": 1, "waits": 7}
