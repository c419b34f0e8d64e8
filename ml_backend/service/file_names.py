"""Names of files that come from outside, made fit for archives and folders."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

LONGEST: Final = 100  # characters
_OTHER: Final = re.compile(r"[^\w.+-]+")
_RESERVED: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows'


def safe_name(name: str) -> str:
    """Return the last part of a name in letters, digits, `_.+-`; empty where nothing is left."""
    last = PurePosixPath(name.replace("\\", "/")).name
    plain = unicodedata.normalize("NFC", last.encode("utf-8", "ignore").decode())
    kept = _OTHER.sub("_", plain).strip("._-")
    if len(kept) > LONGEST:
        stem, dot, ending = kept.rpartition(".")
        keeps_ending = bool(dot) and len(ending) <= 8
        kept = f"{stem[: LONGEST - len(ending) - 1]}.{ending}" if keeps_ending else kept[:LONGEST]
    return f"_{kept}" if _RESERVED.fullmatch(kept) else kept


def distinct_stems(names: Sequence[str]) -> list[str]:
    """Return for each name what files about it begin with, no two the same.

    They differ in more than capitals, since not every disk tells those apart.
    """
    taken: set[str] = set()
    stems = []
    for index, name in enumerate(names):
        kept = safe_name(name)
        wanted = _without_ending(kept) or f"image-{index + 1}"
        stem, number = wanted, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{wanted}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending) > 8:
        return name
    return stem.removesuffix(".ome").rstrip(".")
