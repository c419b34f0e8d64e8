"""The choices of an annotation; the way back from `results`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_backend.domain import ChoicesControl
from ml_backend.errors import BadRequest
from ml_backend.labelstudio.options import shown


def read_chosen(regions: Sequence[Any], control: ChoicesControl) -> frozenset[str]:
    """Return what a person chose for a control, empty when nothing was chosen.

    Choices that the label config no longer has are in it: what becomes of them is for the reader.

    Args:
        regions: The `result` of an annotation or prediction.
        control: Whose choices to read.

    Raises:
        BadRequest: when they cannot be read, or a control for one choice has several.
    """
    chosen: set[str] = set()
    for region in regions:
        if not isinstance(region, Mapping) or region.get("from_name") != control.name:
            continue
        value = region.get("value")
        choices = value.get("choices") if isinstance(value, Mapping) else None
        if not isinstance(choices, list) or not all(_is_choice(choice) for choice in choices):
            raise BadRequest(f"what is chosen for {shown(control.name)} cannot be read.")
        # a choice inside of another one comes as the path to it
        chosen.update(choice if isinstance(choice, str) else choice[-1] for choice in choices)
    if len(chosen) > 1 and not control.multiple:
        some = ", ".join(shown(choice) for choice in sorted(chosen)[:5])
        raise BadRequest(f"{shown(control.name)} takes one choice and has {some}.")
    return frozenset(chosen)


def _is_choice(choice: Any) -> bool:
    if isinstance(choice, str):
        return True
    return isinstance(choice, list) and bool(choice) and all(isinstance(c, str) for c in choice)
