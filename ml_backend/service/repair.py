"""Looks again and again whether Label Studio shows what is served, and repairs it.

After a swap a few times within a minute, after every change that a person makes to the project,
and once a minute whatever happens: a title that was lost makes Label Studio answer annotators with
no predictions at all, without an error anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import BackendError
from ml_backend.learning import ActivationState
from ml_backend.service.swap import ShowsVersions, settle
from ml_backend.store.project_updates import ProjectUpdates
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions

LOOK_EVERY_S = 1.0
EVERY_S = 60.0  # whatever happens
AFTER_A_SWAP_S = (0.0, 2.0, 5.0, 15.0, 40.0)
AFTER_A_CHANGE_S = 1.0  # Label Studio sends the event before its own transaction has ended
LONGEST_PAUSE_S = 300.0  # between two attempts at a Label Studio that refuses
FORGET_STRANGERS_S = 3600.0

log = structlog.get_logger(__name__)


@dataclass
class _Watched:
    """A project that is looked at."""

    due: list[float] = field(default_factory=list)
    insist_until: float = 0.0  # until the last look after a swap
    failures: int = 0  # in a row
    strangers: set[int] = field(default_factory=set)
    strangers_since: float = 0.0


class Repairs:
    """One thread that looks at every project whose Label Studio we have credentials for."""

    def __init__(
        self,
        projects: Projects,
        releases: Releases,
        versions: Versions,
        updates: ProjectUpdates,
        label_studio: Callable[[ProjectKey], ShowsVersions | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._projects = projects
        self._releases = releases
        self._versions = versions
        self._updates = updates
        self._label_studio = label_studio
        self._clock = clock
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._watched: dict[ProjectKey, _Watched] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="repairs", daemon=True)

    def __enter__(self) -> Repairs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=5)

    def follow_swap(self, project: ProjectKey) -> None:
        """Have the project show what it serves now, and watch it for a while."""
        now = self._clock()
        with self._lock:
            watched = self._watched.setdefault(project, _Watched())
            watched.due = [now + delay for delay in AFTER_A_SWAP_S]
            watched.insist_until = now + AFTER_A_SWAP_S[-1] + EVERY_S
            watched.failures = 0
            watched.strangers.clear()

    def between_looks(self) -> AbstractContextManager[bool]:
        """Return a lock under which no look is under way: to say that a swap begins."""
        return self._looking

    def look(self) -> None:
        """Look at every project whose time has come.

        Raises:
            StoreError
        """
        changed = self._updates.new()
        now = self._clock()
        for project in self._projects.all():
            key = project.key
            with self._lock:
                watched = self._watched.setdefault(key, _Watched(due=[now]))
                if key.project_id in changed:
                    watched.due.append(now + AFTER_A_CHANGE_S)
                is_due = bool(watched.due) and min(watched.due) <= now
                if is_due:
                    watched.due = [due for due in watched.due if due > now]
            if is_due:
                self._look_at(key, watched)

    def _look_at(self, key: ProjectKey, watched: _Watched) -> None:
        pause_s = EVERY_S
        try:
            with self._looking:
                repaired = not self.settle(key)
            watched.failures = 0
            if repaired:
                pause_s = AFTER_A_SWAP_S[1]  # the next page can lose it again
        except BackendError as error:  # Label Studio may be away; a later look may do
            watched.failures += 1
            pause_s = min(LONGEST_PAUSE_S, EVERY_S * 2.0 ** (watched.failures - 1))
            log.warning("version not shown", project=str(key), reason=error.message)
        with self._lock:
            watched.due.append(self._clock() + pause_s)
            # one look in a minute is enough, the earlier ones after a swap are kept
            later = sorted(watched.due)
            watched.due = [due for due in later if due < later[0] + EVERY_S]

    def settle(self, project: ProjectKey) -> bool:
        """Make Label Studio show what `project` serves; return whether it did already.

        Raises:
            LabelStudioError, StoreError
        """
        label_studio = self._label_studio(project)
        active = self._releases.active(project)
        if label_studio is None or active is None or self._swap_is_under_way(project):
            return True
        now = self._clock()
        with self._lock:
            watched = self._watched.setdefault(project, _Watched())
            if now - watched.strangers_since > FORGET_STRANGERS_S:
                watched.strangers.clear()
                watched.strangers_since = now
        return settle(
            label_studio,
            project,
            active.version,
            self._releases.versions(project),
            strangers=watched.strangers,
            insist=now < watched.insist_until,
        )

    def _swap_is_under_way(self, project: ProjectKey) -> bool:
        # then the project is ahead of the pointer on purpose
        return any(
            activation.state is ActivationState.WARMED
            for activation in self._versions.history(project)
        )

    def _run(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # the thread must live on; the next round may do
                log.exception("versions not looked at")
