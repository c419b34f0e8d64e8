"""What the table of trainers promises on every database."""

from __future__ import annotations

import pytest

from ml_backend.store.database import Database
from ml_backend.store.trainers import GONE_AFTER_S, SEEN_EVERY_S, Trainers
from tests.fakes import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def trainers(database: Database, clock: ManualClock) -> Trainers:
    """Return the empty table."""
    return Trainers(database, clock=clock)


def test_nobody_is_there_before_the_first(trainers: Trainers) -> None:
    assert trainers.present() == []


def test_a_trainer_is_there_for_as_long_as_it_says_so(
    trainers: Trainers, clock: ManualClock
) -> None:
    for _ in range(20):
        trainers.seen("host:2")
        clock.forward(SEEN_EVERY_S)
    trainers.seen("host:1")
    assert trainers.present() == ["host:1", "host:2"]


def test_one_that_was_killed_is_gone_after_a_while(trainers: Trainers, clock: ManualClock) -> None:
    trainers.seen("host:1")
    clock.forward(GONE_AFTER_S + 1)
    assert trainers.present() == []
    trainers.seen("host:2")  # which also forgets the other
    clock.forward(-GONE_AFTER_S)
    assert trainers.present() == ["host:2"]


def test_one_that_ends_is_gone_at_once(trainers: Trainers) -> None:
    trainers.seen("host:1")
    trainers.leave("host:1")
    trainers.leave("host:1")
    assert trainers.present() == []
