"""Decides which groups of images are held out: once, and never changed afterwards."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

from ml_backend.learning import Side

HOLD_OUT_SHARE = 0.2  # of the groups
FEWEST_GROUPS = 3  # from so many on, at least one is held out


def decide_sides(groups: Collection[str], known: Mapping[str, Side]) -> dict[str, Side]:
    """Return the side of each of `groups`; those in `known` stay where they are.

    Of the new ones those with the lowest hash are held out until the share is reached. A hash has
    nothing to do with what is in an image, and is the same wherever it is asked for.

    Args:
        groups: all that a session has images of.
        known: what was decided before; may name other groups, too.
    """
    names = set(groups)
    sides = {name: known[name] for name in names if name in known}
    held_out = sum(side is Side.HOLD_OUT for side in sides.values())
    missing = max(wanted_hold_out(len(names)) - held_out, 0)
    for rank, name in enumerate(sorted(names - sides.keys(), key=_hash)):
        sides[name] = Side.HOLD_OUT if rank < missing else Side.TRAINING
    return sides


def wanted_hold_out(groups: int) -> int:
    """Return how many of so many groups are to be held out."""
    if groups < FEWEST_GROUPS:
        return 0
    return max(1, math.floor(groups * HOLD_OUT_SHARE + 0.5))


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()
