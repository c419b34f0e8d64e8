"""Reads what people annotated from Label Studio's API: events are dropped and never sent again.

The first pass of a process reads every annotated task. Later ones ask only for tasks that
something happened to since, which is one small request when nothing did. Label Studio says
nothing of tasks that are gone, so when its number of annotations is not the ledger's, and still is
not after a while in which every event was worked through, everything is read again: that is one
request for each annotated task.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import BackendError, LabelStudioError
from ml_backend.labelstudio.project_calls import AnnotatedTask
from ml_backend.labelstudio.rows import ProjectInfo
from ml_backend.learning import Annotation
from ml_backend.store.annotations import AnnotationLedger, Reconciled

OVERLAP_S = 10.0  # read again: Label Studio names its time to the second, and writes late
FULL_EVERY_S = 6 * 3600.0
DOUBT_S = 20.0  # that numbers must differ for: an event may be on its way
LONGEST_PAUSE_S = 3600.0  # between two attempts at a Label Studio that refuses
FIRST_PAUSE_S = 10.0

log = structlog.get_logger(__name__)


class AnnotationSource(Protocol):
    """The part of the Label Studio client that a look at its annotations needs."""

    def now(self) -> float:
        """Return the time by Label Studio's clock."""
        ...

    def project(self, project_id: int) -> ProjectInfo:
        """Return what Label Studio knows under this number now."""
        ...

    def annotated_tasks(
        self, project_id: int, *, changed_since: float | None = None
    ) -> Iterator[AnnotatedTask]:
        """Yield annotated tasks, or those that something happened to since then."""
        ...

    def annotations(self, task_id: int) -> list[Annotation]:
        """Return the annotations of a task, without skipped ones."""
        ...


@dataclass
class _Memory:
    """What is remembered of a project between two looks."""

    cursor: float | None = None  # by Label Studio's clock: what is older has been read
    full_at: float | None = None  # by ours, of the last whole reading
    looked_at: float | None = None  # by ours, of the last look, good or bad
    failures: int = 0  # in a row
    difference: int = 0  # Label Studio's number of annotations less ours, after a whole reading
    doubted_at: float | None = None  # by ours, since when the difference is another one
    looks_again: bool = False  # soon, to see whether it stays so
    lock: threading.Lock = field(default_factory=threading.Lock)  # one look at a time


class Reconciler:
    """Makes the ledger equal to Label Studio where there are credentials; safe for many threads."""

    def __init__(
        self,
        ledger: AnnotationLedger,
        source: Callable[[ProjectKey], AnnotationSource | None],
        *,
        has_backlog: Callable[[], bool] = lambda: False,
        every_s: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare it.

        Args:
            ledger: What is made equal.
            source: The way to a project's Label Studio, None without credentials.
            has_backlog: Whether events wait that nobody has worked into the ledger.
            every_s: Seconds between two periodic looks at a project.
            clock: Ours.
        """
        self._ledger = ledger
        self._source = source
        self._has_backlog = has_backlog
        self._every_s = every_s
        self._clock = clock
        self._memories: dict[ProjectKey, _Memory] = {}

    def is_due(self, project: ProjectKey) -> bool:
        """Return whether it is time for the periodic look."""
        memory = self._memories.get(project)
        if memory is None or memory.looked_at is None:
            return True
        pause = min(self._every_s, DOUBT_S) if memory.looks_again else self._every_s
        if memory.failures:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(memory.failures, 16))
        return self._clock() - memory.looked_at >= pause

    def looked_since(self, project: ProjectKey, moment: float) -> bool:
        """Return whether a look, good or bad, was taken since a moment of our clock."""
        memory = self._memories.get(project)
        return memory is not None and memory.looked_at is not None and memory.looked_at >= moment

    def is_looking(self, project: ProjectKey) -> bool:
        """Return whether a look is being taken now; another one would wait for its end."""
        memory = self._memories.get(project)
        return memory is not None and memory.lock.locked()

    def try_to_reconcile(self, project: ProjectKey) -> Reconciled | None:
        """Reconcile a project; None where there are no credentials or Label Studio refuses.

        Raises:
            StoreError
        """
        memory = self._memories.setdefault(project, _Memory())
        with memory.lock:
            started = self._clock()
            try:
                changes = self._reconcile(project, memory)
            except LabelStudioError as error:
                memory.failures += 1
                log.warning(
                    "annotations cannot be read from Label Studio",
                    project=str(project),
                    reason=error.message,
                )
                return None
            except BackendError as error:  # the records, or a row nobody can read
                memory.failures += 1
                log.warning("reconcile failed", project=str(project), reason=error.message)
                raise
            else:
                memory.failures = 0
            finally:
                memory.looked_at = started
        if changes:
            log.info(
                "found what events had not told",
                project=str(project),
                added=changes.added,
                changed=changes.changed,
                removed=changes.removed,
            )
        return changes

    def _reconcile(self, project: ProjectKey, memory: _Memory) -> Reconciled | None:
        source = self._source(project)
        if source is None:
            return None
        if source.project(project.project_id).created_at != project.created_at:
            raise LabelStudioError(
                f"Label Studio's project {project.project_id} is another one than {project}: it "
                "was reset, or LABEL_STUDIO_URL names another server; correct it."
            )
        begun, cursor = self._clock(), source.now() - OVERLAP_S
        is_whole = memory.full_at is None or begun - memory.full_at >= FULL_EVERY_S
        changes = self._read(project, source, None if is_whole else memory.cursor, begun)
        if not is_whole and self._is_something_missing(project, source, memory):
            # a task that is gone, or an annotation that changed without its task's time
            is_whole, begun = True, self._clock()
            changes = _sum(changes, self._read(project, source, None, begun))
        memory.cursor = cursor
        if is_whole:
            memory.full_at = begun
            # what remains is Label Studio's own, e.g. an annotation that cannot be read
            memory.difference = self._difference(project, source)
            memory.doubted_at, memory.looks_again = None, False
        return changes

    def _is_something_missing(
        self, project: ProjectKey, source: AnnotationSource, memory: _Memory
    ) -> bool:
        """Return whether only a whole reading will tell what the ledger has not heard of."""
        difference, now = self._difference(project, source), self._clock()
        if difference in (0, memory.difference):
            memory.difference = difference
            memory.doubted_at, memory.looks_again = None, False
            return False
        memory.looks_again = True
        if self._has_backlog():
            return False  # it may be what the events tell
        if memory.doubted_at is None:
            memory.doubted_at = now
        return now - memory.doubted_at >= DOUBT_S

    def _read(
        self,
        project: ProjectKey,
        source: AnnotationSource,
        changed_since: float | None,
        begun: float,
    ) -> Reconciled:
        found = list(source.annotated_tasks(project.project_id, changed_since=changed_since))

        def annotations() -> Iterator[Annotation]:
            for item in found:
                if item.annotations:
                    yield from source.annotations(item.task.task_id)

        return self._ledger.reconcile(
            project,
            annotations(),
            [item.task for item in found if item.annotations],
            taken_at=begun,
            only_tasks=None if changed_since is None else [item.task.task_id for item in found],
        )

    def _difference(self, project: ProjectKey, source: AnnotationSource) -> int:
        """Return Label Studio's number of annotations less the ledger's."""
        return source.project(project.project_id).annotation_count - self._ledger.count(project)


def _sum(one: Reconciled, other: Reconciled) -> Reconciled:
    return Reconciled(
        added=one.added + other.added,
        changed=one.changed + other.changed,
        removed=one.removed + other.removed,
    )
