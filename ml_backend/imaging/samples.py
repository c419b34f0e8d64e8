"""Made-up microscopy images with their label images, and the real ones in scikit-image.

The demo and the tests need images that anyone may have; these are drawn from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ml_backend.domain import LabelImage
from ml_backend.imaging.sample_shapes import Kind, Outlines, Plane, draw_outlines, smooth_noise

Picture = npt.NDArray[np.uint8]
"""(Y, X) gray or (Y, X, 3) RGB."""

_NUCLEI = Kind(radius=11, spread=0.18, elongation=1.7, roughness=0.10, touching=0.45)
_TISSUE = Kind(radius=8, spread=0.22, elongation=2.4, roughness=0.12, touching=0.35)
_CELLS = Kind(radius=19, spread=0.16, elongation=1.5, roughness=0.07, touching=0.4)

# How much red, green and blue light each stain takes, per unit of stain.
_HAEMATOXYLIN = np.array([0.65, 0.68, 0.30], np.float32)
_EOSIN = np.array([0.12, 0.88, 0.42], np.float32)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image to show or test with."""

    name: str  # a file name without its ending
    picture: Picture
    about: str  # a sentence: what it shows and where it comes from


def fluorescent_nuclei(
    seed: int, shape: tuple[int, int] = (512, 512), count: int = 90
) -> tuple[Picture, LabelImage]:
    """Return ((Y, X) gray, labels): bright nuclei on a dark, uneven background.

    Args:
        seed: the same seed gives the same image.
        shape: (height, width) in pixels.
        count: how many nuclei, fewer where there is no room.
    """
    random = np.random.default_rng(seed)
    cells = draw_outlines(random, shape, count, _NUCLEI)
    brightness = _per_cell(random, cells, 0.55, 0.30)
    chromatin = 1 + 0.16 * smooth_noise(random, shape, 3) + 0.10 * smooth_noise(random, shape, 1.2)
    spots = smooth_noise(random, shape, 2.5)
    nucleoli = 1 - 0.35 * ((spots > 1.7) & (cells.depth > 0.25))
    thickness = np.sqrt(np.clip(cells.depth * 3, 0, 1))  # thinner towards the rim
    light = brightness * thickness * chromatin * nucleoli
    light = ndimage.gaussian_filter(light, 1.1)
    haze = ndimage.gaussian_filter(light, 25) * 0.25 + 0.04
    uneven = 1 + 0.18 * smooth_noise(random, shape, max(shape) / 3)
    photons = np.clip((light + haze) * uneven, 0, None) * 420
    counted = random.poisson(photons) + random.normal(0, 6, shape)
    return _to_bytes(counted / 480), cells.labels


def histology_like(
    seed: int, shape: tuple[int, int] = (512, 512), count: int = 220
) -> tuple[Picture, LabelImage]:
    """Return ((Y, X, 3) RGB, labels): purple nuclei in pink tissue, as stained with H&E.

    Args:
        seed: the same seed gives the same image.
        shape: (height, width) in pixels.
        count: how many nuclei, fewer where there is no room.
    """
    random = np.random.default_rng(seed)
    body = _soft(1.7 - smooth_noise(random, shape, 40), 0.05)  # 1 in tissue, 0 in a gap
    cells = draw_outlines(random, shape, count, _TISSUE, room=body > 0.9)
    eosin = 0.24 + 0.07 * _fibres(random, shape) + 0.05 * smooth_noise(random, shape, 22)
    eosin = body * (eosin + 0.022 * smooth_noise(random, shape, 2))

    nuclei = ndimage.gaussian_filter((cells.labels > 0).astype(np.float32), 0.8)
    rim = nuclei * np.exp(-(((cells.depth - 0.12) / 0.12) ** 2))
    chromatin = 1 + 0.28 * smooth_noise(random, shape, 1.8)
    stain = _per_cell(random, cells, 0.62, 0.25)
    haematoxylin = ndimage.gaussian_filter(stain * chromatin * (cells.labels > 0), 0.8)
    haematoxylin += 0.16 * rim + 0.05 * body
    eosin = np.clip(eosin * (1 - 0.55 * nuclei), 0, None)
    density = haematoxylin[..., None] * _HAEMATOXYLIN + eosin[..., None] * _EOSIN
    light = 10.0 ** -np.clip(density, 0, None) * 0.95
    return _to_bytes(light + random.normal(0, 0.008, (*shape, 3))), cells.labels


def bright_field_like(
    seed: int, shape: tuple[int, int] = (512, 512), count: int = 55
) -> tuple[Picture, LabelImage]:
    """Return ((Y, X) gray, labels): unstained cells, seen by their rims and granules only.

    Args:
        seed: the same seed gives the same image.
        shape: (height, width) in pixels.
        count: how many cells, fewer where there is no room.
    """
    random = np.random.default_rng(seed)
    cells = draw_outlines(random, shape, count, _CELLS)
    inside = (cells.labels > 0).astype(np.float32)
    contrast = _per_cell(random, cells, 1.0, 0.25)
    outline = np.where(cells.labels > 0, np.exp(-((cells.depth / 0.09) ** 2)), 0) * contrast
    outside = ndimage.distance_transform_edt(cells.labels == 0).astype(np.float32)
    halo = np.where(cells.labels == 0, np.exp(-((outside - 1.5) ** 2) / 5), 0)
    granules = np.clip(smooth_noise(random, shape, 1.5) - 1.1, 0, None) * _soft(
        cells.depth - 0.15, 0.03
    )
    relief = ndimage.sobel(ndimage.gaussian_filter(cells.depth, 3), axis=1)
    light = 0.62 + 0.05 * smooth_noise(random, shape, max(shape) / 2)
    light = light + 0.15 * ndimage.gaussian_filter(halo, 0.8)
    light -= 0.26 * ndimage.gaussian_filter(outline, 0.7) + 0.035 * inside
    light += 0.20 * relief - 0.13 * granules + inside * 0.02 * smooth_noise(random, shape, 4)
    photons = np.clip(ndimage.gaussian_filter(light, 0.8), 0.02, None) * 1500
    return _to_bytes(random.poisson(photons) / 1500), cells.labels


def made_samples(seed: int = 0) -> list[Sample]:
    """Return two made-up images of each kind."""
    makers = (
        ("nuclei", fluorescent_nuclei, "fluorescent nuclei"),
        ("tissue", histology_like, "stained tissue"),
        ("cells", bright_field_like, "unstained cells"),
    )
    return [
        Sample(
            name=f"{name}-{number}",
            picture=make(seed + number)[0],
            about=f"Made-up {what}, drawn by this program.",
        )
        for name, make, what in makers
        for number in (1, 2)
    ]


def bundled_samples() -> list[Sample]:
    """Return the images inside the scikit-image package that show something like cells.

    Nothing is downloaded. The list is shorter where a release of scikit-image lacks one.
    """
    from skimage import data  # half a second to import, and only the demo needs it

    folder = Path(data.__file__).parent
    samples = []
    for load, file, about in (
        ("immunohistochemistry", "ihc.png", "Colon glands, stained brown and blue"),
        ("coins", "coins.png", "Greek coins from Pompeii, round and apart like cells in a dish"),
        ("cell", "cell.png", "A single cell in saline by quantitative phase"),
    ):
        if (folder / file).is_file():  # else scikit-image would download it
            picture = np.asarray(getattr(data, load)())
            about = f"{about} (scikit-image's data.{load})."
            samples.append(Sample(name=load, picture=picture, about=about))
    return samples


def _per_cell(random: np.random.Generator, cells: Outlines, median: float, spread: float) -> Plane:
    """Return (Y, X) with a value of its own for each cell, 0 outside."""
    values = median * np.exp(random.normal(0, spread, int(cells.labels.max()) + 1))
    values[0] = 0
    return np.asarray(values[cells.labels], np.float32)


def _soft(values: Plane, width: float) -> Plane:
    """Return 0 well below zero, 1 well above, and a smooth step between."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values / width, -30, 30))), np.float32)


def _fibres(random: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Return (Y, X) wavy stripes of mean about 0, as collagen lies."""
    direction = smooth_noise(random, shape, 60)
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    phase = (yy + 0.35 * xx) / 7 + 3.5 * direction + 0.6 * smooth_noise(random, shape, 6)
    return np.asarray(np.sin(phase) * (0.6 + 0.4 * smooth_noise(random, shape, 20)), np.float32)


def _to_bytes(light: npt.NDArray[np.floating]) -> Picture:
    """Return light in 0..1 as 8 bits."""
    return np.asarray(np.rint(np.clip(light, 0, 1) * 255), np.uint8)
