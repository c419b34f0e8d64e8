"""What the values and waiting events of toolkit classes promise on every database."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.errors import ToolkitError
from ml_backend.store import toolkit_values
from ml_backend.store.database import Database
from ml_backend.store.events import START_TRAINING, Event, Events, EventState
from ml_backend.store.toolkit_values import LONGEST_KEY, LONGEST_VALUE, ToolkitValues
from ml_backend.store.waiting_events import WaitingEvents
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls.example", project_id=7, created_at=5)
OTHER = ProjectKey(origin="http://other.example", project_id=7, created_at=5)


@pytest.fixture
def values(database: Database) -> ToolkitValues:
    return ToolkitValues(database)


def test_a_value_is_there_for_every_process_and_for_its_project_only(
    database: Database, values: ToolkitValues
) -> None:
    values.set(PROJECT, "weights", "a.pt")
    assert ToolkitValues(database).get(PROJECT, "weights") == "a.pt"
    assert values.get(OTHER, "weights") is None
    assert values.get(PROJECT, "other") is None
    assert values.get(PROJECT, "") is None
    values.set(PROJECT, "weights", "b.pt")
    assert values.get(PROJECT, "weights") == "b.pt"


def test_a_value_may_hold_any_text(values: ToolkitValues) -> None:
    for text in ("", "zellkörper \N{MICROSCOPE}", "a" * LONGEST_VALUE, '{"a": "\\u0000"}'):
        values.set(PROJECT, "key", text)
        assert values.get(PROJECT, "key") == text
    values.set(PROJECT, "key", "a\0b")
    assert values.get(PROJECT, "key") == "ab"  # PostgreSQL cannot hold it


@pytest.mark.parametrize("key", ["", "k" * (LONGEST_KEY + 1), "a\0b"])
def test_a_key_that_cannot_be_is_refused(values: ToolkitValues, key: str) -> None:
    with pytest.raises(ToolkitError, match="choose another"):
        values.set(PROJECT, key, "x")


def test_values_are_bounded(values: ToolkitValues, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolkitError, match="in a file"):
        values.set(PROJECT, "key", "a" * (LONGEST_VALUE + 1))
    monkeypatch.setattr(toolkit_values, "MOST_KEYS", 3)
    monkeypatch.setattr(toolkit_values, "MOST_CHARACTERS", 10)
    for key in "abc":
        values.set(PROJECT, key, "123")
    with pytest.raises(ToolkitError, match="at most 3 values"):
        values.set(PROJECT, "d", "1")
    with pytest.raises(ToolkitError, match="10 characters together"):
        values.set(PROJECT, "a", "12345")
    values.set(PROJECT, "a", "1234")  # in place of the one that is there
    values.set(OTHER, "d", "1")


def test_a_process_notices_what_others_write_and_not_what_it_writes(database: Database) -> None:
    engine, trainer = ToolkitValues(database), ToolkitValues(database)
    engine.set(PROJECT, "mine", "1")
    before = engine.revision_of_others(PROJECT)
    engine.set(PROJECT, "mine", "2")
    engine.set(PROJECT, "more", "1")
    assert engine.revision_of_others(PROJECT) == before
    seen = {before}
    for key, value in (("its", "1"), ("its", "2"), ("mine", "3"), ("new", "1"), ("its", "3")):
        trainer.set(PROJECT, key, value)
        seen.add(engine.revision_of_others(PROJECT))
    assert len(seen) == 6
    trainer.set(OTHER, "its", "1")
    trainer.set(PROJECT, "its", "3")  # as it is already
    assert engine.revision_of_others(PROJECT) in seen


def test_many_may_write_at_once(database: Database) -> None:
    writers = [ToolkitValues(database) for _ in range(4)]

    def write(number: int) -> None:
        for count in range(5):
            writers[number].set(PROJECT, f"key-{number}", str(count))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert [writers[0].get(PROJECT, f"key-{number}") for number in range(4)] == ["4"] * 4
    stranger = ToolkitValues(database)
    assert stranger.revision_of_others(PROJECT) == (4, 20)


# events


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def events(database: Database, clock: ManualClock) -> Events:
    return Events(database, clock=clock)


@pytest.fixture
def waiting(database: Database) -> WaitingEvents:
    return WaitingEvents(database)


def send(events: Events, action: str = "ANNOTATION_CREATED", **content: Any) -> str:
    body = json.dumps({"action": action, **content}).encode()
    return events.record(action=action, payload=body, project_id=7)


def event(events: Events, job: str) -> Event:
    found = events.get(job)
    assert found is not None
    return found


def test_events_wait_in_the_order_they_came(events: Events, waiting: WaitingEvents) -> None:
    jobs = [send(events, number=number) for number in range(3)]
    for job in reversed(jobs):
        waiting.keep(job, PROJECT, "Kept.")
    seen = []
    while (following := waiting.next(PROJECT)) is not None:
        seen.append(following.job)
        assert (following.state, following.project) == (EventState.WAITING, str(PROJECT))
        events.finish(following.job, EventState.DONE, message="Fitted.", session="s")
    assert seen == jobs
    assert event(events, jobs[0]).message == "Fitted."
    assert waiting.newest() == {}


def test_an_event_that_waits_is_not_worked_on_again(events: Events, waiting: WaitingEvents) -> None:
    job = send(events)
    waiting.keep(job, PROJECT, "Kept.")
    assert events.queued(limit=10) == []
    assert not events.has_queued()
    events.finish(job, EventState.DONE)
    waiting.keep(job, PROJECT, "Kept.")  # too late
    assert event(events, job).state is EventState.DONE


def test_the_newest_of_each_project_is_known(
    events: Events, waiting: WaitingEvents, clock: ManualClock
) -> None:
    times = []
    for project, number in ((PROJECT, 1), (OTHER, 2), (PROJECT, 3)):
        clock.forward(10)
        times.append(clock())
        waiting.keep(send(events, number=number), project, "")
    assert waiting.newest() == {PROJECT: times[2], OTHER: times[1]}


def test_what_waits_is_given_up_until_a_moment(
    events: Events, waiting: WaitingEvents, clock: ManualClock
) -> None:
    jobs = []
    for project in (PROJECT, OTHER, PROJECT):
        job = send(events, number=len(jobs))
        waiting.keep(job, project, "")
        jobs.append(job)
        clock.forward(10)
    until = clock() - 15
    assert waiting.give_up(PROJECT, until=until, message="Stopped.") == 1
    states = [event(events, job).state for job in jobs]
    assert states == [EventState.FAILED, EventState.WAITING, EventState.WAITING]
    assert event(events, jobs[0]).message == "Stopped."


def test_a_button_can_be_pressed_again_once_its_event_was_fitted_or_given_up(
    events: Events, waiting: WaitingEvents, clock: ManualClock
) -> None:
    first = send(events, START_TRAINING)
    waiting.keep(first, PROJECT, "")
    assert send(events, START_TRAINING) == first
    events.finish(first, EventState.DONE)
    second = send(events, START_TRAINING)
    assert second != first
    waiting.keep(second, PROJECT, "")
    waiting.give_up(PROJECT, until=clock(), message="Stopped.")
    assert send(events, START_TRAINING) not in (first, second)


def test_what_waits_is_dropped_for_space_last(database: Database, waiting: WaitingEvents) -> None:
    events = Events(database, max_rows=2)
    kept = send(events, number=1)
    waiting.keep(kept, PROJECT, "")
    done = send(events, number=2)
    events.finish(done, EventState.DONE)
    send(events, number=3)
    events.prune()
    assert events.get(done) is None
    assert event(events, kept).state is EventState.WAITING
    send(events, number=4)
    events.prune()
    assert events.get(kept) is None
