"""Flows of recent images, so that another threshold on the same image needs no network."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from ml_backend.engines.flow_field import FlowField


class FlowCache:
    """Recent flow fields up to a number of bytes; safe to use from many threads.

    Requests for the same key at the same time share one computation; one that fails is not kept,
    and those who waited for it get its error.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, FlowField] = OrderedDict()
        self._running: dict[Hashable, Future[FlowField]] = {}
        self._bytes = 0

    @property
    def size(self) -> int:
        """Return the bytes kept."""
        return self._bytes

    def get(self, key: Hashable, compute: Callable[[], FlowField]) -> FlowField:
        """Return the flow field of `key`, from `compute` when it is not kept.

        Raises:
            Whatever `compute` raises.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future = self._running.get(key)
            mine = future is None
            if future is None:
                future = self._running[key] = Future()
        if not mine:
            return future.result()
        try:
            field = compute()
        except BaseException as error:  # handed on to those who wait, and raised below
            with self._lock:
                del self._running[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._keep(key, field)
        future.set_result(field)
        return field

    def _keep(self, key: Hashable, field: FlowField) -> None:
        if field.size > self._max_bytes:
            return
        self._kept[key] = field
        self._bytes += field.size
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size
