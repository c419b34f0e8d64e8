"""The sign of life of a training process."""

from __future__ import annotations

import threading

from ml_backend.errors import SessionLost, StoreError
from ml_backend.learning import Lease
from ml_backend.processes.heartbeats import Heartbeats
from tests.fakes import ManualClock

LEASE = Lease(session_id="s", number=3, owner="here")


class Records:
    """Session records whose answer a test chooses."""

    def __init__(self) -> None:
        self.answer: bool | StoreError = False
        self.beaten = threading.Event()
        self.leases: list[tuple[Lease, float]] = []

    def heartbeat(self, lease: Lease, lease_s: float) -> bool:
        self.leases.append((lease, lease_s))
        self.beaten.set()
        if isinstance(self.answer, StoreError):
            raise self.answer
        return self.answer


class Told:
    """Notes what a heartbeat has said."""

    def __init__(self, records: Records, clock: ManualClock | None = None) -> None:
        self.stops = 0
        self.losses = 0
        self.heartbeats = Heartbeats(
            records,
            LEASE,
            on_stop=self._stop,
            on_lost=self._lost,
            every_s=0.01,
            lease_s=30,
            clock=clock or ManualClock(),
        )

    def _stop(self) -> None:
        self.stops += 1

    def _lost(self) -> None:
        self.losses += 1


def test_the_thread_renews_the_lease_until_it_is_closed() -> None:
    records = Records()
    told = Told(records)

    with told.heartbeats:
        assert records.beaten.wait(5)
    so_far = len(records.leases)
    records.beaten.clear()

    assert records.leases[0] == (LEASE, 30)
    assert not records.beaten.wait(0.1)
    assert len(records.leases) == so_far
    assert (told.stops, told.losses) == (0, 0)


def test_a_person_who_wants_a_stop_is_heard() -> None:
    records = Records()
    told = Told(records)
    records.answer = True

    told.heartbeats.beat()

    assert (told.stops, told.losses) == (1, 0)


def test_a_lease_that_another_has_ends_the_process() -> None:
    records = Records()
    told = Told(records)
    records.answer = SessionLost()

    told.heartbeats.beat()

    assert (told.stops, told.losses) == (0, 1)


def test_records_that_are_away_for_less_than_the_lease_do_no_harm() -> None:
    records, clock = Records(), ManualClock()
    told = Told(records, clock)

    records.answer = StoreError()
    clock.forward(29)
    told.heartbeats.beat()
    records.answer = False
    told.heartbeats.beat()
    records.answer = StoreError()
    clock.forward(29)
    told.heartbeats.beat()

    assert told.losses == 0


def test_a_lease_that_could_not_be_renewed_in_time_is_lost() -> None:
    records, clock = Records(), ManualClock()
    told = Told(records, clock)
    records.answer = StoreError()

    clock.forward(30)
    told.heartbeats.beat()

    assert told.losses == 1
