"""Which labels of a label config a model's class names stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def map_labels(labels: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the label of each class name that has one.

    Args:
        labels: Of the config, each with the class names it asks for, joined by commas; "" where it
            asks for none. Then it stands for the class of its own name, whatever the case.
        names: Of the model's classes.
    """
    mapped = {}
    for label, asked in labels.items():
        wanted = [name.strip() for name in asked.split(",")]
        found = [name for name in wanted if name in names]
        if not found:
            found = [name for name in names if name == label] or [
                name for name in names if name.lower() == label.lower()
            ]
        mapped.update(dict.fromkeys(found, label))
    return mapped
