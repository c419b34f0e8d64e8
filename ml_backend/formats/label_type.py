"""The number type that labels are written with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage

MOST_IN_16_BITS = 65535


def compact(labels: LabelImage) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
    """Return (Y, X) labels as uint16 where they fit, else as uint32, as Cellpose writes them."""
    if labels.max(initial=0) <= MOST_IN_16_BITS:
        return labels.astype(np.uint16)
    return labels.astype(np.uint32)
