"""Licences of weights: what is made from a network is never licensed more freely than it is."""

from __future__ import annotations

import re
from typing import Final

UNKNOWN: Final = "unknown"

_DEMANDS: Final[dict[str, frozenset[str]]] = {  # by patterns of SPDX identifiers
    r"CC0-1\.0|UNLICENSE|0BSD|PDDL-1\.0": frozenset(),
    r"MIT|BSD-\d-CLAUSE|APACHE-2\.0|ISC|CC-BY-\d\.\d|ODC-BY-1\.0": frozenset({"name"}),
    r"CC-BY-SA-\d\.\d|MPL-2\.0|A?L?GPL-\d\.\d.*|ODBL-1\.0": frozenset({"name", "alike"}),
    r"CC-BY-ND-\d\.\d": frozenset({"name", "unchanged"}),
    r"CC-BY-NC-\d\.\d": frozenset({"name", "unpaid"}),
    r"CC-BY-NC-SA-\d\.\d": frozenset({"name", "unpaid", "alike"}),
    r"CC-BY-NC-ND-\d\.\d": frozenset({"name", "unpaid", "unchanged"}),
}


def never_laxer(licence: str, parent: str) -> str:
    """Return the licence of weights that were made from others.

    Args:
        licence: What their maker says; anything.
        parent: The licence of what they were made from.
    """
    ours, theirs = _demands(licence), _demands(parent)
    if theirs == frozenset() or licence == parent:
        return licence
    if ours is None or theirs is None:  # nobody can tell which asks for more
        return parent
    return licence if ours >= theirs else parent


def _demands(licence: str) -> frozenset[str] | None:
    """Return what a licence asks of those who use the weights, None where nobody can tell."""
    for pattern, demands in _DEMANDS.items():
        if re.fullmatch(pattern, licence.strip().upper()):
            return demands
    return None
