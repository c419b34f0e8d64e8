"""Being told to stop: by a signal to the process, or by a person through the records.

While a session trains, the loop asks between batches. Everywhere else (a download, a scoring) the
main thread is broken off where it is, except in a `shielded` part.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType


class Why(StrEnum):
    """Who wants the session to stop."""

    PERSON = "person"  # it ends as stopped
    PROCESS = "process"  # this process has to go; another goes on from the checkpoint


class Interrupted(BaseException):
    """Breaks off what the main thread is doing; no `except Exception` holds it up."""


class Interruption:
    """Whether and why to stop; `requested` may be read in any thread."""

    def __init__(self) -> None:
        self.why: Why | None = None
        self._shields = 0
        self._asked_at = 0.0  # monotonic

    @property
    def requested(self) -> bool:
        """Return whether to stop."""
        return self.why is not None

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as the wish that this process goes; in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_go)
        signal.signal(signal.SIGUSR1, self._break_off)

    @contextmanager
    def listening_to_person(self, told: Callable[[], None]) -> Iterator[None]:
        """Take SIGINT, SIGTERM and SIGHUP as a person's wish to stop; in the main thread.

        Args:
            told: is called once, when the wish has arrived.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            if self.why is None:
                self._asked_at = time.monotonic()
                self.why = Why.PERSON
                told()
            self._break_off(number, frame)

        before = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGINT, stop),
                (signal.SIGTERM, stop),
                (signal.SIGHUP, stop),
                (signal.SIGUSR1, self._break_off),
            )
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def person_asks(self) -> None:
        """Note that a person wants the session to stop; safe in any thread."""
        if self.why is None:
            self._asked_at = time.monotonic()
            self.why = Why.PERSON
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGUSR1)  # wakes it from whatever it waits for

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Let nothing break off this part; it asks `requested` itself, or is short."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1

    def check(self, *, patience_s: float = 0.0) -> None:
        """Break off here if a stop was asked for, and that so long ago.

        Raises:
            Interrupted
        """
        if self.requested and time.monotonic() - self._asked_at >= patience_s:
            raise Interrupted

    def _told_to_go(self, _number: int, _frame: FrameType | None) -> None:
        if self.why is None:
            self._asked_at = time.monotonic()
            self.why = Why.PROCESS
        self._break_off(_number, _frame)

    def _break_off(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested and not self._shields:
            raise Interrupted
