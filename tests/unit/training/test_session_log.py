"""What a session writes about itself, and how often it was tried in vain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ml_backend.learning import EpochPoint, Lease
from ml_backend.training.session_log import EVERY_S, Phase, SessionLog
from tests.fakes import ManualClock
from tests.unit.training.sessions import SESSION

LEASE = Lease(session_id="s", number=1, owner="here")


@dataclass
class Records:
    """Session records that remember what was noted."""

    progress: list[dict[str, Any]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    points: list[EpochPoint] = field(default_factory=list)

    def note(
        self,
        lease: Lease,
        *,
        progress: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        message: str | None = None,
        version: str | None = None,
    ) -> None:
        if progress is not None:
            self.progress.append(dict(progress))
        if report is not None:
            self.reports.append(dict(report))

    def point(self, lease: Lease, point: EpochPoint) -> None:
        self.points.append(point)


def a_log(
    records: Records, progress: Mapping[str, Any], clock: ManualClock | None = None
) -> SessionLog:
    session = replace(SESSION, progress=progress, report={"left_out": ["Task 1."]})
    return SessionLog(records, LEASE, session, clock=clock or ManualClock())


def point(epoch: int) -> EpochPoint:
    return EpochPoint(epoch=epoch, step=epoch, loss=1.0, learning_rate=0.1)


def test_steps_are_noted_every_few_seconds_only() -> None:
    records, clock = Records(), ManualClock()
    log = a_log(records, {}, clock)

    noted = []
    for step in range(4):
        noted.append(log.steps({"step": step}))
        clock.forward(EVERY_S / 2)

    assert noted == [True, False, True, False]
    assert [one["step"] for one in records.progress] == [0, 2]


def test_getting_further_than_before_makes_the_tries_start_anew() -> None:
    records = Records()
    log = a_log(records, {"tries": 3, "furthest": [2, 4, 0]})

    log.phase(Phase.DATASET)
    log.phase(Phase.TRAINING)
    log.point(point(4))
    in_vain = records.progress[-1]["tries"]
    log.point(point(5))

    assert in_vain == 3
    assert records.progress[-1]["tries"] == 0
    assert records.progress[-1]["furthest"] == [2, 5, 0]
    assert [one.epoch for one in records.points] == [4, 5]


def test_a_later_phase_is_further_than_any_epoch() -> None:
    records = Records()
    log = a_log(records, {"tries": 2, "furthest": [2, 400, 0]})

    log.phase(Phase.SCORING)

    assert records.progress[-1]["tries"] == 0


def test_a_task_that_is_reached_for_the_first_time_makes_the_tries_start_anew() -> None:
    records, clock = Records(), ManualClock()
    log = a_log(records, {"tries": 5, "furthest": [0, 0, 2]}, clock)

    log.phase(Phase.DATASET)
    tries = []
    for _ in range(4):
        clock.forward(EVERY_S)
        log.part()
        tries.append(records.progress[-1]["tries"])

    assert tries == [5, 5, 0, 0]
    assert records.progress[-1]["furthest"] == [0, 0, 4]


def test_an_epoch_is_further_than_the_images_before_it() -> None:
    records, clock = Records(), ManualClock()
    log = a_log(records, {}, clock)

    log.phase(Phase.TRAINING)
    clock.forward(EVERY_S)
    for _ in range(50):
        log.part()  # prepared
    log.point(point(1))
    clock.forward(EVERY_S)
    log.part()  # scored

    assert records.progress[-1]["furthest"] == [2, 1, 1]


def test_one_that_dies_at_the_same_task_each_time_gets_no_further() -> None:
    records: Records = Records()
    progress: dict[str, Any] = {}
    for tries in range(1, 6):
        clock = ManualClock()
        log = a_log(records, {**progress, "tries": tries}, clock)
        log.phase(Phase.DATASET)
        for _ in range(11):  # then it is killed
            clock.forward(EVERY_S / 4)
            log.part()
        progress = records.progress[-1]

    assert progress["furthest"] == [0, 0, 8]  # what was noted last
    assert progress["tries"] == 5


def test_a_report_grows_from_what_was_told_before() -> None:
    records = Records()
    log = a_log(records, {})

    log.tell(verdict="It is better.")

    assert records.reports == [{"left_out": ["Task 1."], "verdict": "It is better."}]
