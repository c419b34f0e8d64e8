"""What a session writes about itself into the records while it runs, under its lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from ml_backend.learning import EpochPoint, Lease, Session

EVERY_S = 3.0  # between two notes of the steps: many a second would keep others from writing


class Phase(StrEnum):
    """What a session is doing, in order."""

    DATASET = "dataset"
    BASELINE = "baseline"  # scoring what is served on the hold-out
    EMBEDDING = "embedding"  # the images that nobody has labelled, for clusters
    CLUSTERING = "clustering"
    TRAINING = "training"
    SCORING = "scoring"
    PUBLISHING = "publishing"


# how far each is; sessions that cluster have other phases, none more than a rank apart
_RANKS = {
    Phase.DATASET: 0,
    Phase.BASELINE: 1,
    Phase.EMBEDDING: 1,
    Phase.CLUSTERING: 2,
    Phase.TRAINING: 2,
    Phase.SCORING: 3,
    Phase.PUBLISHING: 4,
}


class SessionRecords(Protocol):
    """The part of the session records that a running session writes to."""

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
        """Replace what is given."""
        ...

    def point(self, lease: Lease, point: EpochPoint) -> None:
        """Keep a point of the curves."""
        ...


class SessionLog:
    """Progress, report and curves of one session; used from one thread.

    The progress also counts, across processes, how often the session was tried without getting
    further than before (`tries`, see `processes.session_worker`): it is zero again as soon as a
    phase, an epoch, or a task or image within them (`part`) is reached for the first time.
    """

    def __init__(
        self,
        records: SessionRecords,
        lease: Lease,
        session: Session,
        *,
        clock: Callable[[], float] = time.monotonic,
        listener: Callable[[Mapping[str, Any]], None] = lambda _progress: None,
    ) -> None:
        """Go on with what stands in the records of `session`.

        `listener` is told of all progress at once, and must be quick.
        """
        self._records = records
        self._lease = lease
        self._clock = clock
        self._listener = listener
        self._progress = dict(session.progress)
        self._report = dict(session.report)
        self._noted_at = -EVERY_S
        self._place = (-1, 0)  # phase and epoch
        self._parts = 0  # begun or done since then

    @property
    def report(self) -> Mapping[str, Any]:
        """Return the report as it stands."""
        return self._report

    def phase(self, phase: Phase) -> None:
        """Note that a phase begins.

        Raises:
            SessionLost, StoreError
        """
        self._progress["phase"] = phase.value
        self._listener(self._progress)
        self._reach(_RANKS[phase], 0)
        self._note()

    def part(self) -> None:
        """Count one more task or image of this phase; noted not more often than `EVERY_S`.

        What is counted but not noted is no progress: else a process that always dies at the same
        place would seem to get a little further each time.

        Raises:
            SessionLost, StoreError
        """
        self._parts += 1
        self._listener(self._progress)
        if self._clock() - self._noted_at >= EVERY_S:
            self._compare()
            self._note()

    def steps(self, facts: Mapping[str, Any]) -> bool:
        """Note how far the training has come, not more often than `EVERY_S`; True: it did.

        Raises:
            SessionLost, StoreError
        """
        self._progress.update(facts)
        self._listener(self._progress)
        if self._clock() - self._noted_at < EVERY_S:
            return False
        self._note()
        return True

    def point(self, point: EpochPoint) -> None:
        """Keep a point of the curves.

        Raises:
            SessionLost, StoreError
        """
        self._records.point(self._lease, point)
        tries = self._progress.get("tries")
        self._reach(_RANKS[Phase.TRAINING], point.epoch)
        if tries:  # else the next note of steps tells it soon enough
            self._note()

    def tell(self, **facts: Any) -> None:
        """Put facts into the report.

        Raises:
            SessionLost, StoreError
        """
        self._report.update(facts)
        self._records.note(self._lease, report=self._report)

    def keep_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Keep what the session learns from.

        Raises:
            SessionLost, StoreError
        """
        self._records.note(self._lease, manifest=manifest)

    def keep_version(self, name: str) -> None:
        """Keep the name of the version that will be made, so that a second try makes no other.

        Raises:
            SessionLost, StoreError
        """
        self._records.note(self._lease, version=name)

    def _reach(self, phase: int, epoch: int) -> None:
        self._place, self._parts = (phase, epoch), 0
        self._compare()

    def _compare(self) -> None:
        now = (*self._place, self._parts)
        if now > tuple(self._progress.get("furthest", (-1, 0, 0))):
            self._progress["furthest"] = list(now)
            self._progress["tries"] = 0

    def _note(self) -> None:
        self._records.note(self._lease, progress=self._progress)
        self._noted_at = self._clock()
