"""An annotated image as the network will see it when it serves, with the flows of its objects.

Normalised over the whole image, channels as in serving, shrunk to the network's scale; enlarging
is left to the crops, which turn and scale anyway. Arrays lie in files and are mapped into memory,
so that a large project needs disk and no memory, and a resumed session computes nothing again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import fastremap
import numpy as np
import numpy.typing as npt
import structlog
import torch
from cellpose import dynamics
from scipy import ndimage

from ml_backend.domain import LabelImage
from ml_backend.engines.flow_field import largest_scale
from ml_backend.engines.normalisation import FloatArray, normalise, resize, to_three_channels
from ml_backend.engines.scale import median_diameter
from ml_backend.engines.served_network import Traits
from ml_backend.training.annotated_image import LARGEST_EDGE, AnnotatedImage
from ml_backend.training.mapped_array import map_array, save_array

REVISION: Final = "1"  # of everything below that decides what lies in the files
TARGET_UNIT: Final = 4096  # targets are stored as 16-bit integers: so many are 1.0
PLACES_STEP: Final = 8  # pixels between the places that a crop of a finished region can start from
SMALLEST_DIAMETER: Final = 5.0  # pixels; smaller medians come from specks, not from cells

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How images become what a network is trained on."""

    traits: Traits  # how the network wants its images when it serves
    diameter: float | None  # of the objects, image pixels; None = as measured in each image
    rescale: bool  # objects get the network's diameter
    clahe: bool
    contact_weight: float  # extra weight in the loss where two objects touch
    folder: Path  # where the arrays are kept
    device: torch.device  # computes flows


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """One image and what the network should answer."""

    key: str  # hash of everything it was made from
    image: FloatArray  # (Y, X, 1 or 3); 1st and 99th percentile of each channel at 0 and 1
    repeat_gray: bool  # a single channel is repeated three times; else it is the first of three
    target: npt.NDArray[np.int16]  # (Y, X, 4) Y-flow, X-flow, inside, weight; in TARGET_UNIT
    centres: FloatArray  # (N, 2) row, column of each object
    places: FloatArray  # (K, 2) row, column of points spread over what is finished
    scale: float  # network pixels per pixel of `image`, 1 or more
    weight: float  # how often it comes up, against the others


def prepare(annotated: AnnotatedImage, how: Preparation) -> PreparedImage | None:
    """Return `annotated` ready for training; None if nothing can be learned from it.

    It is blank, or so large that no crop can be cut from it, or what is finished of it is so small
    that nothing is left of it at the network's scale.

    Raises:
        OSError: the folder cannot be written.
    """
    if max(annotated.labels.shape) > LARGEST_EDGE:
        return None
    scale = _scale(annotated, how)
    shrink = min(1.0, scale)
    height, width = annotated.labels.shape
    size = (max(1, int(height * shrink)), max(1, int(width * shrink)))  # as serving rounds
    key = _key(annotated, how, scale)
    labels = _resize_labels(annotated.labels, size)
    finished = _resize_finished(annotated.finished, size)
    if finished is not None and not finished.any():
        return None
    image_file = how.folder / f"{key}-image.npy"
    target_file = how.folder / f"{key}-target.npy"
    arrays = _kept(image_file, target_file)
    if arrays is None:
        image = _network_image(annotated, how, size)
        if image is None:
            return None
        how.folder.mkdir(parents=True, exist_ok=True)
        save_array(target_file, _target(labels, finished, how))
        save_array(image_file, image)
        arrays = map_array(image_file), map_array(target_file)
    return PreparedImage(
        key=key,
        image=arrays[0],
        repeat_gray=how.traits.repeat_gray,
        target=arrays[1],
        centres=_centres(labels),
        places=_places(finished, size),
        scale=scale / shrink,
        weight=annotated.weight,
    )


def _scale(annotated: AnnotatedImage, how: Preparation) -> float:
    if not how.rescale:
        return 1.0
    diameter = how.diameter
    if diameter is None:
        diameter = median_diameter(annotated.labels)
        if diameter < SMALLEST_DIAMETER:
            diameter = how.traits.diameter  # empty: as it is
    shape = (annotated.labels.shape[0], annotated.labels.shape[1])
    return min(how.traits.diameter / diameter, largest_scale(shape))


def _key(annotated: AnnotatedImage, how: Preparation, scale: float) -> str:
    digest = hashlib.sha256()
    pixels = annotated.image.pixels
    facts = (
        REVISION,
        annotated.image.sha256,
        pixels.shape,
        str(pixels.dtype),
        round(scale, 6),
        how.clahe,
        how.contact_weight,
        how.traits,
        annotated.finished is not None,
    )
    digest.update(repr(facts).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())  # planes of one file have one hash
    digest.update(np.ascontiguousarray(annotated.labels).tobytes())
    if annotated.finished is not None:
        digest.update(np.packbits(annotated.finished).tobytes())
    return digest.hexdigest()[:32]


def _resize_labels(labels: LabelImage, size: tuple[int, int]) -> LabelImage:
    if labels.shape != size:
        labels = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    renumbered: LabelImage = fastremap.renumber(np.ascontiguousarray(labels))[0].astype(np.int32)
    return renumbered


def _resize_finished(
    finished: npt.NDArray[np.bool_] | None, size: tuple[int, int]
) -> npt.NDArray[np.bool_] | None:
    if finished is None or finished.shape == size:
        return finished
    small = cv2.resize(finished.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(small, bool)


def _network_image(
    annotated: AnnotatedImage, how: Preparation, size: tuple[int, int]
) -> FloatArray | None:
    normalised = normalise(annotated.image.pixels, clahe=how.clahe)
    if all(normalised.blank):
        return None  # serving answers such images without the network
    channels = to_three_channels(normalised, repeat_gray=how.traits.repeat_gray)
    if channels.strides[0] == 0 or annotated.image.pixels.shape[2] == 1:
        channels = channels[:1]
    resized = resize(channels, *size, average=how.traits.scale_bound)
    return np.ascontiguousarray(resized.transpose(1, 2, 0))


def _target(
    labels: LabelImage, finished: npt.NDArray[np.bool_] | None, how: Preparation
) -> npt.NDArray[np.int16]:
    flows = dynamics.masks_to_flows_gpu(labels.astype(np.int64), device=how.device)[0]
    target = np.empty((*labels.shape, 4), np.float32)
    target[..., 0], target[..., 1] = flows
    target[..., 2] = labels > 0
    target[..., 3] = 1.0
    if how.contact_weight:
        target[..., 3] += how.contact_weight * contact_map(labels)
    if finished is not None:
        target[..., 3] *= finished
    return np.round(target * TARGET_UNIT).astype(np.int16)


def contact_map(labels: LabelImage) -> FloatArray:
    """Return (Y, X) in 0..1: 1 where two objects touch, fading over about two pixels."""
    numbers = labels.astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(numbers, kernel)
    lowest = cv2.erode(np.where(numbers > 0, numbers, np.float32(1e9)), kernel)
    touching = ((lowest < highest) & (highest > 0) & (lowest < 1e9)).astype(np.float32)
    near: FloatArray = np.minimum(cv2.GaussianBlur(touching, (0, 0), 1.0) * 1.5, 1.0)
    return near.astype(np.float32)


def _centres(labels: LabelImage) -> FloatArray:
    count = int(labels.max(initial=0))
    if count == 0:
        return np.zeros((0, 2), np.float32)
    middles = ndimage.center_of_mass(labels > 0, labels, np.arange(1, count + 1))
    return np.asarray(middles, np.float32).reshape(-1, 2)


def _places(finished: npt.NDArray[np.bool_] | None, size: tuple[int, int]) -> FloatArray:
    step = PLACES_STEP
    mask = np.ones(size, bool) if finished is None else finished
    first = min(step // 2, size[0] - 1), min(step // 2, size[1] - 1)
    spread = np.argwhere(mask[first[0] :: step, first[1] :: step]) * step + first
    if len(spread) == 0:
        spread = np.argwhere(mask)[:1]
    return np.asarray(spread, np.float32).reshape(-1, 2)


def _kept(image: Path, target: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Return what was computed before, None where that is missing or damaged."""
    try:
        return map_array(image), map_array(target)
    except FileNotFoundError:
        return None
    except (EOFError, ValueError) as error:
        log.warning("image is prepared anew", reason=str(error))
        return None
