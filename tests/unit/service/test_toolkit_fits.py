"""Events lead to fit: which of them wait, when there is a session, and what it does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import TOOLKIT, ProjectKey
from ml_backend.errors import BadRequest, StoreError
from ml_backend.learning import Session, SessionState, Trigger
from ml_backend.service.ledger import EventLedger
from ml_backend.service.planning import Wishes
from ml_backend.service.toolkit_fits import (
    TRAIN_EVENTS,
    ToolkitFits,
    ToolkitPlanner,
    WantedEvents,
)
from ml_backend.service.toolkit_fitting import MOST_DEATHS, FitRecords, FitRun, Fitted
from ml_backend.service.toolkit_releasing import MODEL_VERSION
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.events import EventState
from ml_backend.store.releases import DEFAULT_PROJECT
from ml_backend.store.sessions import Sessions
from tests.unit.service.toolkit_bench import CONFIG, KEY, ToolkitBench, open_toolkit_bench

ANNOTATION = {
    "id": 5,
    "task": 1,
    "result": [],
    "created_at": "2026-11-20T23:02:21.0Z",
    "updated_at": "2026-11-20T23:02:21.0Z",
}


class Told(BaseException):
    """A process is told to go."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ToolkitBench]:
    with open_toolkit_bench(tmp_path) as opened:
        opened.introduce()
        yield opened


@pytest.fixture
def sessions(bench: ToolkitBench) -> Sessions:
    return Sessions(bench.database, clock=bench.clock)


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def fits(bench: ToolkitBench, sessions: Sessions, woken: list[str]) -> ToolkitFits:
    ledger = EventLedger(
        bench.events,
        bench.projects,
        AnnotationLedger(bench.database, clock=bench.clock),
        None,
        fits=WantedEvents(bench.waiting, bench.values),
    )
    return ToolkitFits(ledger, bench.waiting, sessions, wake=woken.append, clock=bench.clock)


def only(sessions: Sessions) -> Session:
    """Return the one session that there is."""
    [found] = sessions.find()
    return found


def run(bench: ToolkitBench, progress: Mapping[str, Any] | None = None, **more: Any) -> Fitted:
    """Run a session's work here."""
    arguments: dict[str, Any] = {
        "session_id": "s",
        "progress": progress or {},
        "note": lambda _progress: None,
        "check": lambda: None,
        "clock": bench.clock,
        "sleep": bench.clock.forward,
        **more,
    }
    records = FitRecords(
        events=bench.events,
        waiting=bench.waiting,
        projects=bench.projects,
        releasing=bench.releasing,
    )
    return FitRun(bench.toolkit_class, records, KEY, **arguments).run()


def test_wanted_events_wait_and_the_ledger_knows_them(
    bench: ToolkitBench, fits: ToolkitFits, sessions: Sessions, woken: list[str]
) -> None:
    job = bench.send("ANNOTATION_CREATED", annotation=ANNOTATION, task={"id": 1, "data": {}})
    other = bench.send("PROJECT_UPDATED")
    fits.look()
    assert bench.event(job).state is EventState.WAITING
    assert bench.event(job).message == "1 of 1 annotations are news. It waits for fit()."
    assert bench.event(other).state is EventState.DONE
    session = only(sessions)
    assert (session.controls, session.trigger) == ((TOOLKIT,), Trigger.POLICY)
    assert woken == [session.id]


def test_the_class_says_which_events_it_wants(bench: ToolkitBench, fits: ToolkitFits) -> None:
    bench.values.set(DEFAULT_PROJECT, TRAIN_EVENTS, json.dumps(["PROJECT_UPDATED"]))
    jobs = [bench.send("PROJECT_UPDATED"), bench.send("START_TRAINING")]
    fits.look()
    states = [bench.event(job).state for job in jobs]
    assert states == [EventState.WAITING, EventState.DONE]


def test_one_session_is_enough_and_is_woken_now_and_then(
    bench: ToolkitBench, fits: ToolkitFits, sessions: Sessions, woken: list[str]
) -> None:
    bench.send("START_TRAINING")
    for _ in range(3):
        fits.look()
    bench.send("ANNOTATION_CREATED", annotation=ANNOTATION)
    fits.look()
    assert only(sessions).trigger is Trigger.START_TRAINING
    assert len(woken) == 1
    bench.clock.forward(61)
    fits.look()
    assert len(woken) == 2


def test_a_session_that_runs_takes_what_comes_meanwhile(
    bench: ToolkitBench, fits: ToolkitFits, sessions: Sessions
) -> None:
    bench.send("START_TRAINING")
    fits.look()
    sessions.claim(only(sessions).id, owner="t", lease_s=30)
    bench.send("ANNOTATION_CREATED", annotation=ANNOTATION)
    fits.look()
    assert only(sessions).state is SessionState.RUNNING


def test_what_came_too_late_for_a_session_gets_another(
    bench: ToolkitBench, fits: ToolkitFits, sessions: Sessions
) -> None:
    bench.send("START_TRAINING")
    fits.look()
    lease = sessions.claim(only(sessions).id, owner="t", lease_s=30)
    assert lease is not None
    sessions.finish(lease, SessionState.COMPLETED, message="done")
    fits.look()
    assert len(sessions.find()) == 2


def test_a_person_who_stops_a_session_gives_its_events_up(
    bench: ToolkitBench, fits: ToolkitFits, sessions: Sessions
) -> None:
    job = bench.send("START_TRAINING")
    fits.look()
    bench.clock.forward(1)
    sessions.request_stop(only(sessions).id)
    fits.look()
    assert bench.event(job).state is EventState.FAILED
    assert "stopped" in (bench.event(job).message or "")
    assert only(sessions).state is SessionState.STOPPED
    bench.clock.forward(1)
    bench.send("START_TRAINING")
    fits.look()
    assert len(sessions.find()) == 2


def test_what_failed_is_not_tried_again_until_something_new_comes(
    bench: ToolkitBench, fits: ToolkitFits, sessions: Sessions
) -> None:
    bench.send("START_TRAINING")
    fits.look()
    lease = sessions.claim(only(sessions).id, owner="t", lease_s=30)
    assert lease is not None
    bench.clock.forward(1)
    sessions.finish(lease, SessionState.FAILED, message="it died")
    fits.look()
    assert len(sessions.find()) == 1
    bench.clock.forward(1)
    bench.send("ANNOTATION_CREATED", annotation=ANNOTATION)
    fits.look()
    assert len(sessions.find()) == 2


def test_a_person_can_ask_for_a_training(
    bench: ToolkitBench, fits: ToolkitFits, sessions: Sessions
) -> None:
    planner = ToolkitPlanner(
        bench.projects, bench.events, bench.waiting, sessions, clock=bench.clock
    )
    [session] = planner.request(
        KEY, Trigger.PERSON, owner="ada", wishes=Wishes(parameters={}, label="cells")
    )
    assert (session.owner, session.label, session.trigger) == ("ada", "cells", Trigger.PERSON)
    fits.look()
    assert only(sessions).id == session.id
    assert run(bench).calls == 1
    [(event, data)] = bench.model.calls
    assert event == "START_TRAINING"
    assert data["project"]["id"] == 1
    assert data["project"]["label_config"] == CONFIG
    stranger = ProjectKey(origin="x", project_id=9, created_at=1)
    with pytest.raises(BadRequest, match="unknown"):
        planner.request(stranger, Trigger.PERSON)
    with pytest.raises(BadRequest, match="n_epochs"):
        planner.request(KEY, Trigger.PERSON, wishes=Wishes(parameters={"n_epochs": 3}, label=None))


def test_fit_gets_the_events_in_order_without_their_action(
    bench: ToolkitBench, fits: ToolkitFits
) -> None:
    jobs = [bench.send("ANNOTATION_CREATED", annotation={**ANNOTATION, "id": n}) for n in (1, 2)]
    jobs.append(bench.send("START_TRAINING"))
    fits.look()
    fitted = run(bench)
    assert (fitted.calls, fitted.failures) == (3, ())
    names = [name for name, _ in bench.model.calls]
    assert names == ["ANNOTATION_CREATED", "ANNOTATION_CREATED", "START_TRAINING"]
    assert [data["annotation"]["id"] for _, data in bench.model.calls[:2]] == [1, 2]
    assert all("action" not in data for _, data in bench.model.calls)
    for job in jobs:
        assert (bench.event(job).state, bench.event(job).session) == (EventState.DONE, "s")


def test_a_version_that_fit_sets_is_served_at_once(bench: ToolkitBench, fits: ToolkitFits) -> None:
    def fit(self: Any, event: str, data: Any, **_: Any) -> None:
        self.set(MODEL_VERSION, "fitted")

    bench.model.fit = fit  # type: ignore[method-assign]
    bench.send("START_TRAINING")
    fits.look()
    fitted = run(bench)
    active = bench.releasing.releases.active(KEY)
    assert active is not None
    assert active.version == fitted.version
    assert active.version.startswith("Mood-fitted-")


def test_a_failing_fit_harms_no_other_event(bench: ToolkitBench, fits: ToolkitFits) -> None:
    def fit(self: Any, event: str, data: Any, **_: Any) -> None:
        if event == "START_TRAINING":
            raise ValueError("not enough")
        self.calls.append(event)

    bench.model.fit = fit  # type: ignore[method-assign]
    failing = bench.send("START_TRAINING")
    fine = bench.send("ANNOTATION_CREATED", annotation=ANNOTATION)
    fits.look()
    fitted = run(bench)
    assert fitted.calls == 2
    [failure] = fitted.failures
    assert "fit() of Mood failed (ValueError: not enough; test_toolkit_fits.py, line" in failure
    assert bench.event(failing).state is EventState.FAILED
    assert bench.event(failing).message == failure
    assert bench.event(fine).state is EventState.DONE


def test_an_event_that_kills_its_process_is_passed_over_in_the_end(
    bench: ToolkitBench, fits: ToolkitFits
) -> None:
    deadly = bench.send("START_TRAINING")
    fine = bench.send("ANNOTATION_CREATED", annotation=ANNOTATION)
    fits.look()
    progress = {"event": deadly, "begun": MOST_DEATHS, "tries": 3}
    noted: list[dict[str, Any]] = []
    fitted = run(bench, progress, note=lambda one: noted.append(dict(one)))
    assert len(fitted.failures) == 1
    assert f"{MOST_DEATHS} times" in fitted.failures[0]
    assert bench.event(deadly).state is EventState.FAILED
    assert bench.event(fine).state is EventState.DONE
    assert [name for name, _ in bench.model.calls] == ["ANNOTATION_CREATED"]
    assert noted[-1]["tries"] == 0  # it got further


def test_each_try_at_an_event_is_counted_before_it_begins(
    bench: ToolkitBench, fits: ToolkitFits
) -> None:
    job = bench.send("START_TRAINING")
    fits.look()
    noted: list[dict[str, Any]] = []

    def fit(self: Any, event: str, data: Any, **_: Any) -> None:
        self.calls.append(dict(noted[-1]))

    bench.model.fit = fit  # type: ignore[method-assign]
    run(bench, {"event": job, "begun": 1}, note=lambda one: noted.append(dict(one)))
    [during] = bench.model.calls
    assert (during["event"], during["begun"]) == (job, 2)


def test_being_told_to_go_is_no_death(bench: ToolkitBench, fits: ToolkitFits) -> None:
    def fit(self: Any, event: str, data: Any, **_: Any) -> None:
        raise Told

    bench.model.fit = fit  # type: ignore[method-assign]
    job = bench.send("START_TRAINING")
    fits.look()
    noted: list[dict[str, Any]] = []
    with pytest.raises(Told):
        run(bench, note=lambda one: noted.append(dict(one)))
    assert noted[-1]["begun"] == 0
    assert bench.event(job).state is EventState.WAITING


def test_records_that_are_away_end_the_process_and_not_the_event(
    bench: ToolkitBench, fits: ToolkitFits
) -> None:
    def fit(self: Any, event: str, data: Any, **_: Any) -> None:
        raise StoreError("away")

    bench.model.fit = fit  # type: ignore[method-assign]
    job = bench.send("START_TRAINING")
    fits.look()
    with pytest.raises(StoreError):
        run(bench)
    assert bench.event(job).state is EventState.WAITING


def test_between_two_events_it_can_be_broken_off(bench: ToolkitBench, fits: ToolkitFits) -> None:
    for number in range(3):
        bench.send("ANNOTATION_CREATED", annotation={**ANNOTATION, "id": number})
    fits.look()

    def check() -> None:
        if len(bench.model.calls) == 2:
            raise Told

    with pytest.raises(Told):
        run(bench, check=check)
    assert len(bench.model.calls) == 2
    assert run(bench).calls == 1


def test_events_that_the_class_does_not_want_are_done(bench: ToolkitBench) -> None:
    job = bench.send("TASKS_CREATED")
    bench.waiting.keep(job, KEY, "")  # an older engine wanted it
    assert run(bench).calls == 0
    assert bench.model.calls == []
    assert bench.event(job).state is EventState.DONE


def test_an_event_without_a_label_config_gets_the_project_s(bench: ToolkitBench) -> None:
    seen: list[str] = []
    bench.model.setup = lambda self: seen.append(self.label_config)  # type: ignore[method-assign]
    body = json.dumps({"action": "START_TRAINING", "project": {"id": 1}}).encode()
    job = bench.events.record(action="START_TRAINING", payload=body, project_id=1)
    bench.waiting.keep(job, KEY, "")
    run(bench)
    assert seen == [CONFIG]
