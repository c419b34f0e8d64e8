"""Flows of recent images, so that another threshold on the same image needs no network."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field

from ml_backend.domain import Priority, Urgency, priority_now
from ml_backend.engines.flow_field import FlowField


@dataclass(eq=False, kw_only=True)
class _Computation:
    """A flow field that is being computed, and everybody who waits for it."""

    waiting: list[Urgency]
    future: Future[FlowField] = field(default_factory=Future)

    def priority(self) -> Priority:
        """Return the priority of whoever is most in a hurry."""
        return min(priority_now(urgency) for urgency in tuple(self.waiting))


class FlowCache:
    """Recent flow fields up to a number of bytes; safe to use from many threads.

    Requests for the same key at the same time share one computation, which is as urgent as the most
    urgent of them; one that fails is not kept, and those who waited for it get its error.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, FlowField] = OrderedDict()
        self._running: dict[Hashable, _Computation] = {}
        self._bytes = 0
        self._hits, self._misses = 0, 0

    @property
    def asked(self) -> tuple[int, int]:
        """Return how often a field was there or on its way, and how often it was not."""
        return self._hits, self._misses

    @property
    def size(self) -> int:
        """Return the bytes kept."""
        return self._bytes

    def get(
        self, key: Hashable, compute: Callable[[Urgency], FlowField], *, priority: Urgency
    ) -> FlowField:
        """Return the flow field of `key`, from `compute` when it is not kept.

        Args:
            key: equal where flow fields are.
            compute: gets a priority that rises when somebody in more of a hurry comes to wait.
            priority: of the caller.

        Raises:
            Whatever `compute` raises.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                self._hits += 1
                return self._kept[key]
            running = self._running.get(key)
            mine = running is None
            if running is None:
                running = self._running[key] = _Computation(waiting=[priority])
                self._misses += 1
            else:
                self._hits += 1
                running.waiting.append(priority)
        if not mine:
            return running.future.result()
        try:
            result = compute(running.priority)
        except BaseException as error:  # handed on to those who wait, and raised below
            with self._lock:
                del self._running[key]
            running.future.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._keep(key, result)
        running.future.set_result(result)
        return result

    def drop(self, is_dropped: Callable[[Hashable], bool]) -> None:
        """Let go of the flow fields of such keys; one that is being computed is kept after all."""
        with self._lock:
            for key in [key for key in self._kept if is_dropped(key)]:
                self._bytes -= self._kept.pop(key).size

    def _keep(self, key: Hashable, kept: FlowField) -> None:
        if kept.size > self._max_bytes:
            return
        self._kept[key] = kept
        self._bytes += kept.size
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size
