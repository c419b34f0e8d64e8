"""Jobs in order of priority, each worked on once however many wait for it."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ml_backend.domain import Priority

Key = TypeVar("Key", bound=Hashable)
Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(eq=False)
class Job(Generic[Key, Work, Result]):
    """One piece of work and everybody who waits for it."""

    key: Key
    work: Work
    waiting: list[Priority]  # of everybody who waits for it
    due: float = 0.0  # monotonic seconds; not before
    future: Future[Result] = field(default_factory=Future)
    running: bool = False

    @property
    def priority(self) -> Priority:
        """Return the priority of whoever is most in a hurry."""
        return min(self.waiting, default=Priority.BACKGROUND)


class WorkQueue(Generic[Key, Work, Result]):
    """A priority queue that gives equal keys one job; safe for many threads.

    A job is as urgent as the one who is most in a hurry for it: more when a person opens a task of
    a batch, less when a batch has run out of time. Equal priorities go first come, first served.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._order = itertools.count()
        self._heap: list[tuple[int, int, Job[Key, Work, Result]]] = []
        self._later: list[tuple[float, int, Job[Key, Work, Result]]] = []
        self._jobs: dict[Key, Job[Key, Work, Result]] = {}
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, key: Key, work: Work, priority: Priority) -> Job[Key, Work, Result]:
        """Return the job for `key`, the one there is or a new one, and wait for it."""
        with self._changed:
            job = self._jobs.get(key)
            if job is None:
                job = Job(key=key, work=work, waiting=[priority])
                self._jobs[key] = job
                self._push(job)
            else:
                before = job.priority
                job.waiting.append(priority)
                self._repush(job, before)
            return job

    def leave(self, job: Job[Key, Work, Result], priority: Priority) -> None:
        """Wait no more for a job that was submitted with `priority`; it goes on behind others."""
        with self._changed:
            before = job.priority
            job.waiting.remove(priority)
            self._repush(job, before)

    def take(self, most: Priority) -> Job[Key, Work, Result] | None:
        """Wait for the most urgent job, none less urgent than `most`; None when closed."""
        with self._changed:
            while not self._closed:
                self._promote_due()
                job = self._pop(most)
                if job is not None:
                    job.running = True
                    return job
                self._changed.wait(self._next_wait())
            return None

    def put_back(self, job: Job[Key, Work, Result], delay_s: float) -> None:
        """Return a job that could not be worked on now."""
        with self._changed:
            job.running = False
            job.due = self._clock() + delay_s
            heapq.heappush(self._later, (job.due, next(self._order), job))
            self._changed.notify_all()

    def finish(self, job: Job[Key, Work, Result], result: Result) -> None:
        """Give everybody who waits the result."""
        with self._changed:
            self._jobs.pop(job.key, None)
        job.future.set_result(result)

    def depth(self) -> int:
        """Return how many jobs wait or run."""
        with self._changed:
            return len(self._jobs)

    def close(self) -> list[Job[Key, Work, Result]]:
        """Let every `take` return None; return the jobs that will not be done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return [job for job in self._jobs.values() if not job.running]

    def _push(self, job: Job[Key, Work, Result]) -> None:
        heapq.heappush(self._heap, (int(job.priority), next(self._order), job))
        self._changed.notify_all()

    def _repush(self, job: Job[Key, Work, Result], before: Priority) -> None:
        if job.priority != before and not job.running and job.due <= self._clock():
            self._push(job)  # the older entry is recognised by its priority and skipped

    def _promote_due(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            job = heapq.heappop(self._later)[2]
            self._push(job)

    def _pop(self, most: Priority) -> Job[Key, Work, Result] | None:
        while self._heap:
            priority, _, job = self._heap[0]
            outdated = self._jobs.get(job.key) is not job or priority != job.priority
            if outdated or job.running or job.due > self._clock():
                heapq.heappop(self._heap)
                continue
            if priority > most:
                return None
            heapq.heappop(self._heap)
            return job
        return None

    def _next_wait(self) -> float | None:
        if not self._later:
            return None
        return max(0.0, self._later[0][0] - self._clock())
