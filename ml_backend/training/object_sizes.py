"""How large the objects of a session are, and how much images differ in that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ml_backend.engines.scale import equivalent_diameters, median_diameter
from ml_backend.training.annotated_image import AnnotatedImage

_TELLING = 3  # objects; the median of fewer may be that of a speck


def object_sizes(images: Sequence[AnnotatedImage]) -> tuple[float | None, float]:
    """Return the median diameter of all objects, and how much single images' medians differ."""
    diameters = [equivalent_diameters(image.labels) for image in images if image.objects]
    if not diameters:
        return None, 1.0
    telling = [image for image in images if image.objects >= _TELLING] or images
    medians = [median_diameter(image.labels) for image in telling if image.objects]
    return float(np.median(np.concatenate(diameters))), max(medians) / min(medians)
