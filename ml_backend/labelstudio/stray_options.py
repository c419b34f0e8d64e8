"""Options in a label config that have no effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

from ml_backend.labelstudio.config_tags import tag_text
from ml_backend.labelstudio.learning_options import LEARNING_OPTIONS
from ml_backend.labelstudio.options import (
    CHOICES_OPTIONS,
    CLUSTER_OPTIONS,
    OPTIONS,
    Option,
    model_attributes,
    unknown_sentence,
)


def stray_options(
    root: Element,
    *,
    optioned: Sequence[Element],
    images: Iterable[Element],
    shapes: Iterable[Element],
    choices: Iterable[Element],
    cluster_tags: Iterable[Element],
) -> Iterator[str]:
    """Yield a sentence for each option that nobody knows or that stands where nobody reads it.

    Args:
        root: of the label config.
        optioned: tags with `model_*` attributes.
        images, shapes, choices, cluster_tags: tags that may have them; Labels count as shapes.
    """
    everything = {**OPTIONS, **CHOICES_OPTIONS, **CLUSTER_OPTIONS}
    read_at: dict[int, Mapping[str, Option]] = {
        **{id(tag): {**OPTIONS, **CHOICES_OPTIONS} for tag in images},
        id(root): {**OPTIONS, **CHOICES_OPTIONS},
        **{id(tag): {**OPTIONS, **CHOICES_OPTIONS} for tag in shapes},
        **{id(tag): CHOICES_OPTIONS for tag in choices},
        **{id(tag): CLUSTER_OPTIONS for tag in cluster_tags},
    }
    for element in optioned:
        where = tag_text(element)
        for name in model_attributes(element.attrib):
            if name in LEARNING_OPTIONS:
                if element is not root:
                    yield (
                        f"{where} has the option {name}, which is ignored there; put it on "
                        "the root tag."
                    )
            elif name not in everything:
                known = (*everything, *LEARNING_OPTIONS)
                yield (unknown_sentence(where, name, known))
            elif name not in read_at.get(id(element), ()):
                yield (
                    f"{where} has the option {name}, which is ignored there; put it on "
                    f"{_place_of(name)}."
                )


def _place_of(name: str) -> str:
    if name in CLUSTER_OPTIONS:
        return "a Number or TextArea tag"
    kind = "a control" if name in OPTIONS else "a Choices tag"
    return f"{kind}, its Image tag or the root tag"
