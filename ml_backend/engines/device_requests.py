"""What callers ask of a device's thread, and the batches it makes of it."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from ml_backend.domain import Urgency, priority_now
from ml_backend.engines.served_network import ServedNetwork
from ml_backend.engines.tiling import FloatArray

T = TypeVar("T")
Cut = Callable[[int], FloatArray]  # index of a tile -> (C, tile height, tile width)
Answer = tuple[int, FloatArray]  # index of a tile, (3, tile height, tile width)


@dataclass(eq=False, kw_only=True)
class DeviceRequest:
    """Something that a caller waits for."""

    priority: Urgency
    number: int  # in the order of asking

    @property
    def urgency(self) -> tuple[int, int]:
        """Return what orders requests now: the smallest goes first."""
        return (int(priority_now(self.priority)), self.number)


@dataclass(eq=False, kw_only=True)
class TileRequest(DeviceRequest):
    """Tiles of one image for one network."""

    network: ServedNetwork
    tile_yx: tuple[int, int]
    cut: Cut
    waiting: deque[int]  # tiles that are not on the device yet
    answers: queue.SimpleQueue[Answer | BaseException] = field(default_factory=queue.SimpleQueue)
    alone: bool = False  # a batch with it failed: do not let it spoil others again
    failed: bool = False  # or its caller has gone: what is left of it is dropped


@dataclass(eq=False, kw_only=True)
class CallRequest(DeviceRequest):
    """A function to run on the device's thread."""

    function: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)


@dataclass(eq=False, kw_only=True)
class Batch:
    """Tiles of one network and size, perhaps of several requests."""

    tiles: list[tuple[TileRequest, int]]
    started_at: float = 0.0  # of time.monotonic: when it was handed to the device
    answer: Tensor | None = None  # (tiles, 3, Y, X) on the device, perhaps still being computed


def has_work(request: DeviceRequest) -> bool:
    """Return whether anything of `request` is still to be handed to the device."""
    return not isinstance(request, TileRequest) or (bool(request.waiting) and not request.failed)


def shape_key(request: TileRequest) -> tuple[int, tuple[int, int]]:
    """Return what is equal for requests whose tiles can share a batch."""
    return id(request.network), request.tile_yx


def limit_key(request: TileRequest) -> tuple[str, tuple[int, int]]:
    """Return what a batch's memory depends on, also after the network was loaded again."""
    return request.network.component.sha256, request.tile_yx


def attempt(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return the function's result, or the error that it ended with."""
    try:
        return function(), None
    except Exception as error:  # the thread outlives its work; the caller gets the error
        return None, error
