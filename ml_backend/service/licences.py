"""Licences of weights: under which a copy of them may be given on."""

from __future__ import annotations

from typing import Final

from ml_backend.errors import BadRequest
from ml_backend.model_files.licences import UNKNOWN, never_laxer

USUAL: Final = (  # SPDX identifiers that people can name; the freest first
    "CC0-1.0",
    "MIT",
    "BSD-3-Clause",
    "Apache-2.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-NC-ND-4.0",
)


def licence_of_copy(weights: str, asked: str | None, *, name: str) -> str:
    """Return the SPDX identifier of the licence that a copy of weights is given on under.

    Args:
        weights: The licence of the weights themselves; `unknown` where nobody said.
        asked: What a person wants; None = the licence of the weights.
        name: Of the model, for messages.

    Raises:
        BadRequest: it asks for less than the licence of the weights does, or none is known.
    """
    wanted = weights if asked is None else _usual(asked)
    if wanted == UNKNOWN:
        raise BadRequest(
            f"Nobody said under which licence the weights of {name!r} are; name it (licence), one "
            f"of {', '.join(USUAL)}."
        )
    if weights != UNKNOWN and never_laxer(wanted, weights) != wanted:
        raise BadRequest(
            f"The weights of {name!r} are under {weights}, and {wanted} would ask for less; leave "
            f"the licence out, or name {weights}."
        )
    return wanted


def _usual(asked: str) -> str:
    for usual in USUAL:
        if usual.lower() == asked.strip().lower():
            return usual
    raise BadRequest(f"The licence {asked[:100]!r} is not known here; use {', '.join(USUAL)}.")
