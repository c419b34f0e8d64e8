"""Who is told what became of each batch."""

from __future__ import annotations

from typing import Protocol


class BatchObserver(Protocol):
    """Is told of batches, on the device's thread: it must be quick and raise nothing."""

    def ran(self, *, tiles: int, images: int, seconds: float) -> None:
        """Take note of a batch that was answered.

        Args:
            tiles: In it.
            images: That these are of.
            seconds: From handing it to the device until its answer was there.
        """
        ...

    def failed(self, *, out_of_memory: bool) -> None:
        """Take note of a batch that the device did not answer."""
        ...


class Nobody:
    """Takes no note."""

    def ran(self, *, tiles: int, images: int, seconds: float) -> None:
        """Do nothing."""

    def failed(self, *, out_of_memory: bool) -> None:
        """Do nothing."""
