"""Which images belong together, so that they are on the same side of the split.

A group is what the task field named by `model_group` says (well, slide, movie), else the picture
itself. The side of each picture is kept as well: the same picture in two groups, or a `model_group`
that is set later, must not bring a picture that was held out into the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ml_backend.domain import Image
from ml_backend.learning import LabelledTask, Side
from ml_backend.training.split import decide_sides


def pixels_group(image: Image) -> str:
    """Return the group of an image's pixels, whatever file they came in."""
    pixels = np.ascontiguousarray(image.pixels)
    digest = hashlib.sha256(f"{pixels.dtype.str}{pixels.shape}".encode())
    digest.update(pixels.data)
    return f"pixels:{digest.hexdigest()}"


def group_of(task: LabelledTask, pixels: str, group_field: str | None) -> str:
    """Return the group of a task's image; `pixels` where the task has nothing in the field."""
    value = None if group_field is None else task.data.get(group_field)
    if value is None or value == "" or not isinstance(value, str | int | float):
        return pixels
    return f"{group_field}:{value}"


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of a session, and the pictures in each."""

    pictures: Mapping[str, frozenset[str]]  # group -> groups of the pixels

    @classmethod
    def of(cls, members: Iterable[tuple[str, str]]) -> Groups:
        """Return the groups of (group, group of the pixels) pairs."""
        pictures: dict[str, set[str]] = {}
        for group, pixels in members:
            pictures.setdefault(group, set()).add(pixels)
        return cls(pictures={group: frozenset(found) for group, found in pictures.items()})

    def sides(self, known: Mapping[str, Side]) -> dict[str, Side]:
        """Return the side of each group and of each picture; what is in `known` stays.

        A new group of a picture that was held out is held out, too.
        """
        decided = {}
        for group, pictures in self.pictures.items():
            before = {known[picture] for picture in pictures if picture in known}
            if group in known:
                decided[group] = known[group]
            elif before:
                decided[group] = Side.HOLD_OUT if Side.HOLD_OUT in before else Side.TRAINING
        sides = decide_sides(self.pictures.keys(), decided)
        held_out = {
            picture
            for group, pictures in self.pictures.items()
            if sides[group] is Side.HOLD_OUT
            for picture in pictures
        }
        every = {picture for pictures in self.pictures.values() for picture in pictures}
        for picture in every - sides.keys():
            side = Side.HOLD_OUT if picture in held_out else Side.TRAINING
            sides[picture] = known.get(picture, side)
        return sides
