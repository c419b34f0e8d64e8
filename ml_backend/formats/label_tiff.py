"""Label images as TIFF, 16-bit, or 32-bit where there are more: what napari and Fiji open."""

from __future__ import annotations

import io
from typing import BinaryIO

import tifffile

from ml_backend.domain import LabelImage
from ml_backend.formats.label_type import compact


def write_label_tiff(file: BinaryIO, labels: LabelImage) -> None:
    """Write (Y, X) labels, 0 = background, as a compressed TIFF."""
    packed = io.BytesIO()  # tifffile wants files that have a name, or none at all, such as this
    tifffile.imwrite(packed, compact(labels), compression="zlib")
    file.write(packed.getbuffer())
