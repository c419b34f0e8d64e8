"""Names tasks that look half-finished: far fewer objects than the base network finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ml_backend.domain import Image
from ml_backend.training.annotated_image import AnnotatedImage

SHARE = 0.3  # of what the base finds; with fewer outlined a task is named
FEWEST_FOUND = 10  # by the base; below, its word does not count
MOST_LOOKED_AT = 200  # images: each costs a prediction


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A task that looks half-finished."""

    task_id: int
    annotation_ids: tuple[int, ...]
    objects: int  # outlined
    found: int  # by the base

    @property
    def sentence(self) -> str:
        """Return what a person should know of it."""
        return (
            f"Task {self.task_id} has {self.objects} outlined objects where the base network finds "
            f"{self.found}; finish it, or draw a region with the label that model_roi names around "
            "what is finished."
        )


def find_unfinished(
    images: Sequence[AnnotatedImage],
    outlined: Sequence[int],
    count: Callable[[Image], int],
    *,
    most: int = MOST_LOOKED_AT,
) -> list[Unfinished]:
    """Return the images that look half-finished, in the order of `images`.

    Of very many, those with the fewest objects are looked at.

    Args:
        images: those on which nobody has said what is finished.
        outlined: objects in each, of any label.
        count: returns how many objects the base network finds.
        most: how many images are looked at.
    """
    suspects = sorted(range(len(images)), key=lambda index: (outlined[index], index))[:most]
    found: dict[str, int] = {}  # by image: several annotations share one
    named = []
    for index in sorted(suspects):
        image = images[index]
        if image.image.sha256 not in found:
            found[image.image.sha256] = count(image.image)
        by_base = found[image.image.sha256]
        if by_base >= FEWEST_FOUND and outlined[index] < SHARE * by_base:
            named.append(
                Unfinished(
                    task_id=image.task_id,
                    annotation_ids=image.annotation_ids,
                    objects=outlined[index],
                    found=by_base,
                )
            )
    return named
