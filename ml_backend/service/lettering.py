"""Words on pictures: the font, and any text made fit to be drawn."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from PIL import ImageFont

ELLIPSIS = "…"


@lru_cache(maxsize=32)
def font(size: int) -> Any:
    """Return the font of all pictures, `size` pixels high."""
    return ImageFont.load_default(size)


def one_line(text: str) -> str:
    """Return a text on one line, without what cannot be drawn: line breaks, controls, surrogates.

    People name labels as they like, and Pillow refuses to measure a text of several lines.
    """
    known = text.encode("utf-8", "replace").decode("utf-8")
    visible = (
        character if unicodedata.category(character)[0] != "C" else " " for character in known
    )
    return " ".join("".join(visible).split())


def shortened(text: str, width: float, size: int, *, middle: bool = False) -> str:
    """Return a text on one line, no wider than `width` pixels, an ellipsis for what is left out.

    Args:
        text: any.
        width: pixels.
        size: of the font, pixels.
        middle: leave out the middle instead of the end, for names that begin alike.
    """
    line = one_line(text)
    if _width(line, size) <= width:
        return line
    low, high = 0, len(line)  # the most characters that fit are between them
    while low < high:
        kept = (low + high + 1) // 2
        if _width(_cut(line, kept, middle), size) <= width:
            low = kept
        else:
            high = kept - 1
    return _cut(line, low, middle)


def _cut(line: str, kept: int, middle: bool) -> str:
    last = kept // 2 if middle else 0
    return line[: kept - last].rstrip() + ELLIPSIS + line[len(line) - last :].lstrip()


def _width(line: str, size: int) -> float:
    return float(font(size).getlength(line))
