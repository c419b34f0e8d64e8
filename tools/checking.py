"""Checks whose failures end a script with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ml_backend.errors import BackendError


class NotAsItShouldBe(Exception):
    """A call did something else than it should; the text says what."""


def check(is_right: bool, sentence: str) -> None:
    """Go on if something is as it should be.

    Raises:
        NotAsItShouldBe
    """
    if not is_right:
        raise NotAsItShouldBe(sentence)


@contextmanager
def refused(kind: type[BackendError], what: str) -> Iterator[None]:
    """Go on if what happens within is refused with an error of this kind.

    Raises:
        NotAsItShouldBe: it is not.
    """
    try:
        yield
    except kind:
        return
    except BackendError as error:
        raise NotAsItShouldBe(
            f"{what} is refused, but as {type(error).__name__}: {error}"
        ) from error
    raise NotAsItShouldBe(f"{what} is not refused")
