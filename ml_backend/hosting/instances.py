"""One instance of a toolkit class for each project, made once and used again.

The toolkit makes a new one for every request, and so loads its model every time. Here an instance
lives until the label config is another, or until another process (a `fit`) has set one of the
project's values: then `setup` runs again and finds them. Its methods are never called by two
threads at once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import ToolkitError
from ml_backend.hosting.failures import guarded
from ml_backend.hosting.loading import ToolkitClass
from ml_backend.hosting.ports import Values, making_for

FAILED_FOR_S = 10.0  # a class that could not be set up is not tried again sooner

log = structlog.get_logger(__name__)


def make_instance(toolkit_class: ToolkitClass, project: ProjectKey, label_config: str) -> Any:
    """Return a new instance for a project, set up.

    Raises:
        ToolkitError: it cannot be made.
        BackendError: an error of ours that it passed on.
    """
    with making_for(project):
        return guarded(
            f"setup() of {toolkit_class.name}",
            toolkit_class.folder,
            lambda: toolkit_class.type(
                project_id=str(project.project_id), label_config=label_config
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Made:
    """An instance and what it was made from."""

    instance: Any
    label_config: str
    revision: tuple[int, int]  # of the project's values that others have set


@dataclass
class _Slot:
    """The place of a project's instance."""

    lock: threading.Lock = field(default_factory=threading.Lock)  # held while it is in use
    made: Made | None = None
    failure: tuple[float, str, ToolkitError] | None = None  # when, label config, error
    preparing: dict[str, Future[None]] = field(default_factory=dict)  # by label config


class Instances:
    """The instances of one process; safe for many threads."""

    def __init__(
        self,
        toolkit_class: ToolkitClass,
        values: Values,
        *,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without any.

        Args:
            toolkit_class: Whose instances.
            values: What it keeps for projects.
            most: Projects that have one at once; the one not used for longest is let go of.
            clock: Seconds.
        """
        self.toolkit_class = toolkit_class
        self._values = values
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: OrderedDict[ProjectKey, _Slot] = OrderedDict()

    def prepare(self, project: ProjectKey, label_config: str, *, timeout_s: float) -> bool:
        """Have an instance made; return whether it is there in time. Its making goes on if not.

        Raises:
            ToolkitError: it cannot be made.
            BackendError: an error of ours that it passed on.
        """
        slot = self._slot(project)
        if self._is_current(slot.made, project, label_config):
            return True
        with self._lock:
            future = slot.preparing.get(label_config)
            if future is None:
                future = slot.preparing[label_config] = Future()
                threading.Thread(
                    target=self._prepare,
                    args=(slot, project, label_config, future),
                    name="toolkit-setup",
                    daemon=True,
                ).start()
        try:
            future.result(timeout=max(0.0, timeout_s))
        except FutureTimeout:
            return False
        return True

    @contextmanager
    def use(self, project: ProjectKey, label_config: str) -> Iterator[Any]:
        """Yield the project's instance, made where there is none that is current.

        Raises:
            ToolkitError: it cannot be made.
            BackendError: an error of ours that it passed on.
        """
        slot = self._slot(project)
        with slot.lock:
            made = self._current(slot, project, label_config)
            with making_for(project):
                yield made.instance

    def _prepare(
        self, slot: _Slot, project: ProjectKey, label_config: str, future: Future[None]
    ) -> None:
        try:
            with slot.lock:
                self._current(slot, project, label_config)
        except BaseException as error:  # whoever waits is told
            future.set_exception(error)
        else:
            future.set_result(None)
        finally:
            with self._lock:
                slot.preparing.pop(label_config, None)

    def _slot(self, project: ProjectKey) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(project, _Slot())
            self._slots.move_to_end(project)
            idle = [key for key, one in self._slots.items() if one.made and not one.lock.locked()]
            for key in idle[: max(0, len(self._slots) - self._most)]:
                if key != project:
                    del self._slots[key]
            return slot

    def _is_current(self, made: Made | None, project: ProjectKey, label_config: str) -> bool:
        return (
            made is not None
            and made.label_config == label_config
            and made.revision == self._values.revision_of_others(project)
        )

    def _current(self, slot: _Slot, project: ProjectKey, label_config: str) -> Made:
        if slot.made is not None and self._is_current(slot.made, project, label_config):
            return slot.made
        if slot.failure is not None:
            failed_at, of_config, error = slot.failure
            if of_config == label_config and self._clock() - failed_at < FAILED_FOR_S:
                raise error
        revision = self._values.revision_of_others(project)  # before: setup() may miss later ones
        slot.made = None  # let go of first: two models may not fit
        started = self._clock()
        try:
            instance = make_instance(self.toolkit_class, project, label_config)
        except ToolkitError as error:
            slot.failure = (self._clock(), label_config, error)
            raise
        slot.failure = None
        slot.made = Made(instance=instance, label_config=label_config, revision=revision)
        log.info(
            "toolkit class set up",
            toolkit_class=self.toolkit_class.name,
            project=str(project),
            seconds=round(self._clock() - started, 3),
        )
        return slot.made
