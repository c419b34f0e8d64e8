"""Pictures as data: URLs, made by the project's own generator."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from ml_backend.imaging.samples import fluorescent_nuclei


def nuclei_url(*, seed: int, size: int = 128, count: int = 12) -> str:
    """Return a fluorescence picture of `size` pixels both ways as a data: URL."""
    picture, _ = fluorescent_nuclei(seed=seed, shape=(size, size), count=count)
    encoded, data = cv2.imencode(".png", np.asarray(picture))
    assert encoded
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
