"""The `model_*` attributes that decide predictions: their names, and how each is read."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "model_"
DEFAULT_MAX_REGIONS = 100

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, kw_only=True)
class Option:
    """One `model_*` attribute."""

    read: Callable[[str], Any]  # raises ValueError when the text is not allowed
    allowed: str  # what is allowed, as it is said to a person
    default: str  # what holds without it, likewise
    meaning: str  # a sentence for the documentation


def number(low: float, *, above: bool = False, high: float = math.inf) -> Callable[[str], float]:
    """Return what reads a number from `low` (or above it) to `high`."""

    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value < low or (above and value == low) or value > high:
            raise ValueError(text)
        return value

    return read


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return what reads a whole number from `low` to `high`."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def boolean(text: str) -> bool:
    """Read true or false.

    Raises:
        ValueError
    """
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(text)


def _channels(text: str) -> tuple[int, ...]:
    values = tuple(integer(0, 9999)(part) for part in text.split(","))
    if len(values) > 3 or len(set(values)) < len(values):
        raise ValueError(text)
    return values


def _text(text: str) -> str:
    if len(text) > 4096 or not text.isprintable():
        raise ValueError(text)
    return text


_LABEL = "a label of this tag"

_PLANE = Option(
    read=integer(0, 1_000_000),
    allowed="the number of a plane, 0 for the first",
    default="first in time, the middle of everything else",
    meaning="Which plane of a stack is looked at.",
)
_CHANNELS = Option(
    read=_channels,
    allowed='up to three different channel numbers like "0,2", 0 for the first',
    default="up to the first three",
    meaning="Which channels the network sees, and in which order.",
)
_SKIP = Option(
    read=boolean,
    allowed="true or false",
    default="false",
    meaning="Whether this control is left to people.",
)

OPTIONS: Mapping[str, Option] = {
    "model_name": Option(
        read=_text,
        allowed="the name of a model, the id of a session or the path of a checkpoint",
        default="what MODEL names",
        meaning="The network that feeds this control.",
    ),
    "model_diameter": Option(
        read=number(0, above=True, high=100_000),
        allowed="a number of pixels above 0",
        default="estimated for each image; Cellpose-SAM needs none",
        meaning="Diameter of the cells in the image; the image is resized by it for the network.",
    ),
    "model_flow_threshold": Option(
        read=number(0, high=1000),
        allowed="a number from 0 (accept every object) upwards",
        default="0.4",
        meaning="Objects whose outline fits the network's flows worse than this are dropped.",
    ),
    "model_cellprob_threshold": Option(
        read=number(-100, high=100),
        allowed="a number, usually from -6 to 6",
        default="0",
        meaning="Pixels with a lower cell probability (a logit) are background.",
    ),
    "model_iterations": Option(
        read=integer(1, 100_000),
        allowed="a whole number above 0",
        default="from the diameter",
        meaning="Steps for which pixels follow the flows; long thin cells need more.",
    ),
    "model_min_size": Option(
        read=integer(0, 2**31 - 1),
        allowed="a whole number of pixels from 0 upwards",
        default="15",
        meaning="Objects with fewer pixels are dropped.",
    ),
    "model_clahe": Option(
        read=boolean,
        allowed="true or false",
        default="false",
        meaning="Evens out the contrast over the image before the network sees it.",
    ),
    "model_plane": _PLANE,
    "model_channels": _CHANNELS,
    "model_score_threshold": Option(
        read=number(0, high=1),
        allowed="a number from 0 to 1",
        default="0",
        meaning="Cells that score lower are left out.",
    ),
    "model_label": Option(
        read=_text,
        allowed=_LABEL,
        default="the tag's first label that is not model_roi",
        meaning="The label that the cells get.",
    ),
    "model_classes": Option(
        read=boolean,
        allowed="true or false",
        default="true where the tag has several labels and no model_label",
        meaning="Whether it is learned which of the tag's labels a cell gets.",
    ),
    "model_skip": _SKIP,
    "model_max_regions": Option(
        read=integer(0, 1_000_000),
        allowed="a whole number from 0 (always merge) upwards",
        default=str(DEFAULT_MAX_REGIONS),
        meaning=(
            "Above so many cells a brush or bitmask control gets one merged mask per label, or "
            "nothing where a polygon control of the same image carries the cells."
        ),
    ),
    "model_roi": Option(
        read=_text,
        allowed=_LABEL,
        default="none",
        meaning="The label of the regions of interest that people draw; cells never get it.",
    ),
    "model_group": Option(
        read=_text,
        allowed="the name of a field in the task data",
        default="none",
        meaning="Field that says which images belong together (well, slide), for training.",
    ),
}
"""Every attribute for masks; `model_roi` and `model_group` are for training too."""

CHOICES_OPTIONS: Mapping[str, Option] = {
    "model_embedder": Option(
        read=_text,
        allowed="the name of an embedder, or the path of a timm model",
        default="what EMBEDDER names",
        meaning="What turns an image into the numbers that classes are learned from.",
    ),
    "model_unsure_below": Option(
        read=number(0, high=1),
        allowed="a number from 0 to 1",
        default="0",
        meaning="Answers that are less likely to be right are left to people.",
    ),
    "model_clusters": Option(
        read=integer(2, 1000),
        allowed="a whole number from 2 to 1000",
        default="from the labels, else from the number of images",
        meaning="How many groups of similar images k-means makes.",
    ),
    "model_plane": _PLANE,
    "model_channels": _CHANNELS,
    "model_skip": _SKIP,
}
"""Every attribute for `Choices`."""

CLUSTER_OF = "model_cluster_of"
CLUSTER_OPTIONS: Mapping[str, Option] = {
    CLUSTER_OF: Option(
        read=_text,
        allowed="the name of a Choices tag",
        default="none",
        meaning="The tag shows the number of the cluster that the image is in.",
    ),
}
"""Attributes of `Number` and `TextArea` tags."""


def model_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the `model_*` attributes that are not empty, names in lower case, values stripped."""
    lowered = {name.lower(): value.strip() for name, value in attributes.items()}
    return {name: value for name, value in lowered.items() if name.startswith(PREFIX) and value}


def unknown_sentence(where: str, name: str, known: Collection[str]) -> str:
    """Return the sentence for an attribute we do not know, with the closest name we do."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}" if close else f"known are {', '.join(known)}"
    return f"{where} has the unknown option {shown(name)}, which is ignored; {hint}."


def read_options(
    attributes: Mapping[str, str],
    where: Mapping[str, str],
    *,
    known: Mapping[str, Option] = OPTIONS,
) -> tuple[dict[str, Any], list[str]]:
    """Read attributes that are known.

    Args:
        attributes: Name -> text.
        where: Name -> the tag that carries it, as it is named to a person.
        known: How to read them.

    Returns:
        The values that could be read, and a problem for each that could not.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, text in attributes.items():
        option = known[name]
        try:
            values[name] = option.read(text)
        except ValueError:
            problems.append(f"{where[name]} has {name}={shown(text)}; allowed is {option.allowed}")
    return values, problems


def shown(text: str) -> str:
    """Return text from a config as it may stand in a message: quoted, short, printable."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else "?" for c in short) + '"'
