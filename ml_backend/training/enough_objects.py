"""Which training images hold enough objects to be learned from."""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.training.annotated_image import AnnotatedImage


def with_enough(
    images: Sequence[AnnotatedImage], least: int, *, asked_by: str
) -> tuple[list[AnnotatedImage], list[str]]:
    """Return the images that hold `least` objects or more, or none at all, and what is left out.

    An image without objects teaches what the background looks like; one with a few often is
    half-finished.

    Args:
        images: For training.
        least: Objects.
        asked_by: What people set to change that.
    """
    return (
        [image for image in images if not 0 < image.objects < least],
        [
            f"{image.title} is left out: it has {image.objects} objects, fewer than the {least} "
            f"that {asked_by} asks for."
            for image in images
            if 0 < image.objects < least
        ],
    )
