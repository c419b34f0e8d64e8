"""What a network finds in the image that its package is tested with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ml_backend.domain import LabelImage, Pixels
from ml_backend.engines.normalisation import FloatArray
from ml_backend.service.package_network import PackedNetwork
from ml_backend.service.package_sample import (
    LARGEST_SHAPE,
    PackageSample,
    fitted,
    given_sample,
    made_sample,
    resized,
)

NOT_OFF_BY: Final = 1.2  # in diameter, before an image is resized for the network


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a network found in the sample."""

    tested: Pixels  # (Y, X, C), the test input
    answer: FloatArray  # (3, Y, X), the test output
    tested_labels: LabelImage  # what it describes
    shown: Pixels  # on the cover
    shown_labels: LabelImage
    about: str  # a sentence: what the image is
    is_made: bool

    @property
    def found(self) -> int:
        """Return how many objects are on the cover's image."""
        return int(self.shown_labels.max(initial=0))


def try_network(packed: PackedNetwork, sample: bytes | None) -> Trial:
    """Return what a network finds.

    Args:
        packed: The network.
        sample: An NPY file; None = an image that is drawn.

    Raises:
        ImageError, BadRequest: the sample is no image.
    """
    chosen = _sample(packed, sample)
    frame = packed.frame
    # a transformer answers to one tile; its cover may show more
    shown = fitted(chosen.pixels, least=frame.least, step=max(1, frame.step), largest=LARGEST_SHAPE)
    shown_answer = packed.whole_answer(shown)
    shown_labels = packed.labels(shown_answer)
    tested, answer, labels = shown, shown_answer, shown_labels
    if packed.architecture.tile is not None:
        tested = fitted(shown, least=frame.least, step=0, largest=LARGEST_SHAPE)
        answer = packed.answer(tested)
        labels = packed.labels(answer)
    return Trial(
        tested=tested,
        answer=answer,
        tested_labels=labels,
        shown=shown,
        shown_labels=shown_labels,
        about=chosen.about,
        is_made=chosen.is_made,
    )


def _sample(packed: PackedNetwork, content: bytes | None) -> PackageSample:
    if content is None:
        return made_sample(scale=packed.frame.scale, least=packed.frame.least)
    given = given_sample(content)
    part = fitted(given.pixels, least=1, step=1, largest=LARGEST_SHAPE)
    factor = packed.enlargement(part)
    if max(factor, 1 / factor) < NOT_OFF_BY:
        return given
    return PackageSample(
        pixels=resized(given.pixels, factor), about=given.about, is_made=given.is_made
    )
