"""One thread that owns the device: callers wait, tiles of several callers share batches.

A unit of work is one batch of tiles or one function. Before each unit the most urgent waiting
request is looked up, so that someone who waits at a screen is at most one unit behind. Free places
of a batch go to other requests for the same network and tile size. While the device computes a
batch, the thread cuts the next one; answers are put together in the callers' threads.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

import numpy as np
import structlog
import torch
from torch import Tensor

from ml_backend.domain import Urgency
from ml_backend.engines.batch_observer import BatchObserver, Nobody
from ml_backend.engines.device_memory import free_memory, is_out_of_memory
from ml_backend.engines.device_requests import (
    Answer,
    Batch,
    CallRequest,
    Cut,
    DeviceRequest,
    TileRequest,
    attempt,
    has_work,
    limit_key,
    shape_key,
)
from ml_backend.engines.served_network import ServedNetwork
from ml_backend.errors import BackendError, EngineError, EngineUnavailable, OutOfMemory

log = structlog.get_logger(__name__)

T = TypeVar("T")


class DeviceThread:
    """The only thread that runs networks on a device; a context manager."""

    def __init__(self, device: torch.device, *, observer: BatchObserver | None = None) -> None:
        self.device = device
        self._observer = observer or Nobody()
        self._condition = threading.Condition()
        self._requests: list[DeviceRequest] = []
        self._numbers = itertools.count()
        self._batch_limits: dict[tuple[str, tuple[int, int]], int] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"device-{device}", daemon=True)
        self._thread.start()

    def __enter__(self) -> DeviceThread:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def can_fall_back(self) -> bool:
        """Return whether there is another device for what does not fit this one."""
        return self.device.type != "cpu"

    @property
    def waiting(self) -> int:
        """Return how many requests have work that is not on the device yet."""
        with self._condition:
            return sum(has_work(request) for request in self._requests)

    def close(self) -> None:
        """Finish the unit in work, refuse the rest, end the thread; safe to call twice."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def call(self, function: Callable[[], T], *, priority: Urgency) -> T:
        """Return what `function` returns, run on the device's thread.

        Raises:
            EngineUnavailable: the thread has ended.
        """
        request = CallRequest(priority=priority, number=next(self._numbers), function=function)
        self._submit(request)
        result: T = request.future.result()
        return result

    def run_tiles(
        self,
        network: ServedNetwork,
        cut: Cut,
        count: int,
        tile_yx: tuple[int, int],
        *,
        priority: Urgency,
    ) -> Generator[Answer, None, None]:
        """Yield (index, answer) of every tile as it is ready, in no particular order.

        Args:
            network: on this thread's device.
            cut: returns tile `index`, (C, tile height, tile width); called on the device's thread.
            count: number of tiles.
            tile_yx: height and width of each.
            priority: who goes first; looked up before each unit of work.

        Raises:
            OutOfMemory: not even one tile fits; tiles that were yielded are good.
            EngineError: the network failed on this request.
            EngineUnavailable: the thread has ended.
        """
        request = TileRequest(
            priority=priority,
            number=next(self._numbers),
            network=network,
            tile_yx=tile_yx,
            cut=cut,
            waiting=deque(range(count)),
        )
        self._submit(request)
        try:
            for _ in range(count):
                answer = request.answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            request.failed = True  # a caller that stops early leaves nothing behind

    def _submit(self, request: DeviceRequest) -> None:
        with self._condition:
            if self._closing:
                raise EngineUnavailable
            self._requests.append(request)
            self._condition.notify_all()

    def _work(self) -> None:
        running: Batch | None = None
        while True:
            unit = self._next_unit(wait=running is None)
            if isinstance(unit, CallRequest):
                self._finish(running)
                running = None
                _call(unit)
            else:
                started = self._start(unit) if unit is not None else None
                self._finish(running)
                running = started
                if running is None and unit is None and self._closing:
                    break
        self._refuse_rest()

    def _next_unit(self, *, wait: bool) -> Batch | CallRequest | None:
        with self._condition:
            while True:
                self._requests = [r for r in self._requests if has_work(r)]
                if self._closing:
                    return None
                if self._requests:
                    break
                if not wait:
                    return None
                self._condition.wait()
            first = min(self._requests, key=lambda request: request.urgency)
            if isinstance(first, CallRequest):
                self._requests.remove(first)
                return first
            assert isinstance(first, TileRequest)  # noqa: S101  # there is no third kind
            return self._collect(first)

    def _collect(self, first: TileRequest) -> Batch:
        places = self._batch_limits.get(limit_key(first)) or first.network.batch_for(first.tile_yx)
        tiles: list[tuple[TileRequest, int]] = []
        same = [
            request
            for request in self._requests
            if isinstance(request, TileRequest) and shape_key(request) == shape_key(first)
        ]
        for request in sorted(same, key=lambda request: request.urgency):
            if request is not first and (first.alone or request.alone):
                continue
            while request.waiting and len(tiles) < places:
                tiles.append((request, request.waiting.popleft()))
        return Batch(tiles=tiles)

    def _start(self, batch: Batch) -> Batch | None:
        # hands the batch to the device without waiting for it
        network = batch.tiles[0][0].network

        def start() -> Tensor:
            stacked = np.stack([request.cut(index) for request, index in batch.tiles])
            return network.run(torch.from_numpy(stacked))

        batch.started_at = time.monotonic()
        batch.answer, error = attempt(start)
        if error is not None:
            self._recover(batch, error)
            return None
        return batch

    def _finish(self, batch: Batch | None) -> None:
        if batch is None or batch.answer is None:
            return
        answers, error = attempt(batch.answer.cpu)  # waits for the device
        if answers is None:
            self._recover(batch, error or EngineError())
            return
        for (request, index), answer in zip(batch.tiles, answers.numpy(), strict=True):
            request.answers.put((index, answer))
        self._observer.ran(
            tiles=len(batch.tiles),
            images=len({request for request, _ in batch.tiles}),
            seconds=time.monotonic() - batch.started_at,
        )

    def _recover(self, batch: Batch, error: Exception) -> None:
        requests = list(dict.fromkeys(request for request, _ in batch.tiles))
        out_of_memory = is_out_of_memory(error)
        self._observer.failed(out_of_memory=out_of_memory)
        if out_of_memory:
            batch.answer = None
            free_memory(self.device)
            if len(batch.tiles) > 1:
                half = len(batch.tiles) // 2
                self._batch_limits[limit_key(requests[0])] = half
                log.warning("batch halved", device=str(self.device), tiles=half)
                self._put_back(batch)
                return
            failure: BackendError = OutOfMemory()
        elif len(requests) > 1:
            for request in requests:
                request.alone = True
            self._put_back(batch)
            return
        elif isinstance(error, BackendError):
            failure = error
        else:
            log.error("network failed", device=str(self.device), exc_info=error)
            failure = EngineError(
                f"The network failed on this image ({type(error).__name__}: {error})."
            )
            failure.__cause__ = error
        for request in requests:
            request.failed = True
            request.answers.put(failure)

    def _put_back(self, batch: Batch) -> None:
        with self._condition:
            for request, index in reversed(batch.tiles):
                request.waiting.appendleft(index)
                if request not in self._requests:
                    self._requests.append(request)

    def _refuse_rest(self) -> None:
        with self._condition:
            left, self._requests = self._requests, []
        for request in left:
            if isinstance(request, CallRequest):
                request.future.set_exception(EngineUnavailable())
            elif isinstance(request, TileRequest):
                request.answers.put(EngineUnavailable())


def _call(request: CallRequest) -> None:
    result, error = attempt(request.function)
    if error is not None:
        request.future.set_exception(error)
    else:
        request.future.set_result(result)
