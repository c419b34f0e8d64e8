"""Tells the application that its process is to end, while requests are still being answered."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def told_of_end(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` as soon as the process is told to end.

    A server waits for the answers that it is sending, and a stream would go on for ever. The
    lifespan ends too late for that: only after them. So this listens to the signals in front of
    the server's own handlers. Outside of the main thread there are no signals; nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, _in_front_of(handler, tell))
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def _in_front_of(
    handler: Callable[[int, FrameType | None], Any], tell: Callable[[], None]
) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        tell()
        handler(number, frame)

    return handle
