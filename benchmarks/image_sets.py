"""Images with masks for the benchmarks: ../shared/data where it is, otherwise our generator's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import fastremap
import numpy as np
import numpy.typing as npt

from ml_backend.domain import Image
from ml_backend.imaging.decode import decode_image
from ml_backend.imaging.samples import fluorescent_nuclei

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
FIELD_YX = (520, 696)  # of the mosaic in `large`, pixels
LARGEST_MEGAPIXELS = 1000


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """An image and its ground truth."""

    name: str
    image: Image
    truth: npt.NDArray[np.int32]  # (Y, X), 0 = background


def set_names() -> list[str]:
    """Return the names of the sets with masks that are at hand."""
    if not SHARED.is_dir():
        return []
    return sorted(path.parent.name for path in SHARED.glob("*/masks"))


def read_set(name: str, limit: int | None = None) -> list[Annotated]:
    """Return the images of a set of ../shared/data, in the order of their names."""
    folder = SHARED / name
    found = []
    for path in sorted((folder / "images").iterdir())[:limit]:
        mask = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        truth = fastremap.renumber(mask.astype(np.int32))[0]
        image = decode_image(path, max_megapixels=LARGEST_MEGAPIXELS)
        found.append(Annotated(name=path.stem, image=image, truth=truth))
    return found


def nuclei(edge: int, count: int) -> list[Annotated]:
    """Return `count` fluorescence images of edge x edge pixels with ground truth."""
    if not (SHARED / "large").is_dir():
        return [_generated(edge, seed) for seed in range(count)]
    mosaic = read_set("large")[0]
    height, width = mosaic.truth.shape
    per_row = width // edge
    found = []
    for index in range(count):
        top = (index // per_row) * edge % (height - edge + 1)
        left = (index % per_row) * edge
        found.append(crop(mosaic, slice(top, top + edge), slice(left, left + edge)))
    return found


def crop(whole: Annotated, rows: slice, columns: slice) -> Annotated:
    """Return a part of an annotated image."""
    name = f"{whole.name}-{rows.start}-{columns.start}-{rows.stop - rows.start}"
    pixels = np.ascontiguousarray(whole.image.pixels[rows, columns])
    truth = fastremap.renumber(np.ascontiguousarray(whole.truth[rows, columns]))[0]
    return Annotated(name=name, image=Image(pixels=pixels, sha256=name), truth=truth)


def _generated(edge: int, seed: int) -> Annotated:
    pixels, truth = fluorescent_nuclei(
        seed=seed, shape=(edge, edge), count=max(4, edge * edge // 2600)
    )
    pixels = np.asarray(pixels)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    name = f"generated-{edge}-{seed}"
    return Annotated(
        name=name,
        image=Image(pixels=pixels, sha256=name),
        truth=np.asarray(truth).astype(np.int32),
    )
