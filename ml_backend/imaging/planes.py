"""Which planes and channels of a multi-dimensional image are taken.

A plane is one position on all axes that are neither rows, columns nor channels (Z, T, or an axis
without a meaning). Planes are counted from 0 in the order of the file, its last axis fastest.
A channel is one position on the axes C and S (samples, such as red, green and blue) together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ml_backend.errors import ImageDecodeError

CHANNEL_AXES = "CS"
DEFAULT_CHANNELS = 3


def choose_plane(axes: str, shape: Sequence[int], asked: int | None) -> tuple[int, tuple[str, ...]]:
    """Return (plane, notes): the asked one, else first in time and middle of everything else.

    Args:
        axes: a letter per axis as tifffile names them, e.g. "TCZYX".
        shape: the length of each axis.
        asked: 0 = first; None = the usual one.

    Raises:
        ImageDecodeError: when there is no such plane.
    """
    count = prod(length for _, length in plane_axes(axes, shape))
    taken = usual_plane(axes, shape) if asked is None else asked
    if not 0 <= taken < count:
        raise ImageDecodeError(
            f"The image has {_counted(count, 'plane')}, so there is no plane {taken}; "
            f"{_choose_from(count)}."
        )
    return taken, (f"Plane {taken} of 0 to {count - 1} was used.",) if count > 1 else ()


def choose_channels(
    count: int, asked: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return (channels, notes): the asked ones, else up to the first three of `count`.

    Raises:
        ImageDecodeError: when there is no such channel.
    """
    taken = asked or tuple(range(min(count, DEFAULT_CHANNELS)))
    wrong = [channel for channel in taken if not 0 <= channel < count]
    if wrong:
        raise ImageDecodeError(
            f"The image has {_counted(count, 'channel')}, so there is no channel {wrong[0]}; "
            f"{_choose_from(count)}."
        )
    if set(taken) == set(range(count)):
        return taken, ()
    listed = ", ".join(str(channel) for channel in taken)
    subject = f"Channel {listed}" if len(taken) == 1 else f"Channels {listed}"
    verb = "was" if len(taken) == 1 else "were"
    return taken, (f"{subject} of 0 to {count - 1} {verb} used.",)


def plane_axes(axes: str, shape: Sequence[int]) -> list[tuple[str, int]]:
    """Return (letter, length) of the axes that count planes, in order."""
    return [
        (letter, length)
        for letter, length in zip(axes, shape, strict=True)
        if letter not in "YX" + CHANNEL_AXES
    ]


def channel_count(axes: str, shape: Sequence[int]) -> int:
    """Return the number of channels, samples included."""
    return prod(
        length for letter, length in zip(axes, shape, strict=True) if letter in CHANNEL_AXES
    )


def usual_plane(axes: str, shape: Sequence[int]) -> int:
    """Return the plane that is first in time and in the middle of everything else."""
    plane = 0
    for letter, length in plane_axes(axes, shape):
        plane = plane * length + (0 if letter == "T" else length // 2)
    return plane


def position(axes: str, shape: Sequence[int], *, plane: int, channel: int) -> dict[str, int]:
    """Return the index on each axis but rows and columns, by letter."""
    found: dict[str, int] = {}
    for letter, length in reversed(list(zip(axes, shape, strict=True))):
        if letter in CHANNEL_AXES:
            channel, found[letter] = divmod(channel, length)
        elif letter not in "YX":
            plane, found[letter] = divmod(plane, length)
    return found


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _choose_from(count: int) -> str:
    return "leave it out or choose 0" if count == 1 else f"choose from 0 to {count - 1}"
