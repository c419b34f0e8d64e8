"""Random crops of prepared images, made ahead in threads, the same for the same seed and step.

Every crop's random numbers come from (seed, step, number of the crop) and nothing else: a resumed
training sees the crops that an uninterrupted one would have seen, however many threads there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ml_backend.engines.normalisation import FloatArray
from ml_backend.recipes import Recipe
from ml_backend.training.prepared_image import TARGET_UNIT, PreparedImage

AHEAD = 4  # batches
ON_OBJECT = 0.8  # share of the crops that have an object near their middle
OFF_MIDDLE = 0.35  # of a crop's edge, how far at most
ANY_ANGLE = 0.6  # share of the crops turned by any angle; the others by quarters of a turn
CROWDED = 0.4  # an image comes up the more often the more objects it holds: count to this power
VALIDATION = 1 << 40  # in the place of the step, for crops that no step has


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The crops of one step."""

    step: int
    images: Tensor  # (N, 3, Y, X) float32
    targets: Tensor  # (N, 4, Y, X) float32: Y-flow, X-flow, inside, weight


class CropLoader:
    """An endless stream of batches; a context manager that ends its threads."""

    def __init__(
        self,
        images: Sequence[PreparedImage],
        recipe: Recipe,
        *,
        first_step: int,
        threads: int = 1,
        pin: bool = False,
    ) -> None:
        """Begin to make the batches from `first_step` on.

        Args:
            images: at least one.
            recipe: says size, number and looks of the crops.
            first_step: 0 = the first of the training.
            threads: that make batches.
            pin: keep them in page-locked memory, from where a GPU fetches them faster.
        """
        shares = np.array(
            [image.weight * max(len(image.centres), 1) ** CROWDED for image in images]
        )
        self._images, self._recipe, self._pin = images, recipe, pin
        self._shares = shares / shares.sum()
        self._next = first_step
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="crops")
        self._ready: deque[Future[Batch]] = deque()

    def __enter__(self) -> CropLoader:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batch after batch, for ever."""
        while True:
            while len(self._ready) <= AHEAD:
                self._ready.append(self._pool.submit(self._batch, self._next))
                self._next += 1
            yield self._ready.popleft().result()

    def _batch(self, step: int) -> Batch:
        recipe = self._recipe
        crops = []
        for number in range(recipe.batch_size):
            random = np.random.default_rng((recipe.seed, step, number))
            image = self._images[random.choice(len(self._images), p=self._shares)]
            crops.append(random_crop(random, image, recipe))
        batch = stack(crops, step)
        if self._pin:
            return Batch(
                step=step, images=batch.images.pin_memory(), targets=batch.targets.pin_memory()
            )
        return batch


def validation_crops(images: Sequence[PreparedImage], recipe: Recipe, count: int) -> Batch | None:
    """Return `count` crops, the images by turns, neither turned nor changed; None without images.

    They are the same for the same images and seed, so that the losses of epochs can be compared.
    """
    if not images:
        return None
    crops = []
    for number in range(count):
        random = np.random.default_rng((recipe.seed, VALIDATION, number))
        crops.append(plain_crop(random, images[number % len(images)], recipe))
    return stack(crops, -1)


def stack(crops: Sequence[tuple[FloatArray, FloatArray]], step: int) -> Batch:
    """Return pairs of (3, Y, X) and (4, Y, X) as one batch."""
    return Batch(
        step=step,
        images=torch.from_numpy(np.stack([image for image, _ in crops])),
        targets=torch.from_numpy(np.stack([target for _, target in crops])),
    )


def random_crop(
    random: np.random.Generator, image: PreparedImage, recipe: Recipe
) -> tuple[FloatArray, FloatArray]:
    """Return a turned, mirrored and scaled crop as (3, Y, X) and its target as (4, Y, X)."""
    spread = recipe.scale_range / 2
    scale = image.scale * random.uniform(1 - spread, 1 + spread)
    if random.random() < ANY_ANGLE:
        angle = random.uniform(0, 2 * np.pi)
    else:
        angle = random.integers(4) * np.pi / 2
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([1.0, random.choice((-1.0, 1.0))])
    pixels, target, inside = _cut(random, image, recipe, scale, turn)
    if recipe.look:
        pixels = change_look(random, pixels, recipe.look) * inside[..., None]
    return _to_three(pixels, image), np.ascontiguousarray(target.transpose(2, 0, 1))


def plain_crop(
    random: np.random.Generator, image: PreparedImage, recipe: Recipe
) -> tuple[FloatArray, FloatArray]:
    """Return a crop as serving would see it as (3, Y, X), and its target as (4, Y, X)."""
    pixels, target, _ = _cut(random, image, recipe, image.scale, np.eye(2))
    return _to_three(pixels, image), np.ascontiguousarray(target.transpose(2, 0, 1))


def _cut(
    random: np.random.Generator,
    image: PreparedImage,
    recipe: Recipe,
    scale: float,
    turn: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> tuple[FloatArray, FloatArray, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Return pixels (Y, X, C), target (Y, X, 4) and which of them lie in the image (Y, X)."""
    edge = recipe.crop
    height, width = image.image.shape[:2]
    limits = np.array((width, height), np.float64)
    middle = _middle(random, image, edge / scale)
    # Mostly inside the image; what is outside is black, as where serving pads a whole image. By
    # it a network tells an object that the image's border cuts from one that a tile's border cuts.
    beyond = random.uniform(0, recipe.frame) if recipe.frame else 0.0
    margin = np.minimum((0.5 * edge - beyond) / scale, limits / 2)
    middle = np.clip(middle, margin, limits - margin)
    # OpenCV has columns first: (x, y) of the crop to (x, y) of the image
    linear = turn / scale
    offset = middle - 0.5 - linear @ np.array([(edge - 1) / 2, (edge - 1) / 2])
    matrix = np.column_stack([linear, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(np.asarray(image.image), matrix, (edge, edge), flags=flags)
    warped = cv2.warpAffine(np.asarray(image.target), matrix, (edge, edge), flags=flags)
    target = warped.astype(np.float32)
    target /= TARGET_UNIT
    flow_y, flow_x = target[..., 0].copy(), target[..., 1].copy()
    target[..., 0] = turn[0, 1] * flow_x + turn[1, 1] * flow_y
    target[..., 1] = turn[0, 0] * flow_x + turn[1, 0] * flow_y
    target[..., 2] = target[..., 2] > 0.5
    along = np.arange(edge)
    x = linear[0, 0] * along[None, :] + linear[0, 1] * along[:, None] + offset[0]
    y = linear[1, 0] * along[None, :] + linear[1, 1] * along[:, None] + offset[1]
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return pixels.reshape(edge, edge, -1), target, inside


def _middle(
    random: np.random.Generator, image: PreparedImage, reach: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    # (x, y), image pixels
    near = len(image.centres) > 0 and random.random() < ON_OBJECT
    points = image.centres if near else image.places
    row, column = points[random.integers(len(points))]
    middle = np.array([column + 0.5, row + 0.5], np.float64)
    if near:
        middle += random.uniform(-OFF_MIDDLE, OFF_MIDDLE, 2) * reach
    return middle


def change_look(random: np.random.Generator, pixels: FloatArray, strength: float) -> FloatArray:
    """Return `pixels: (Y, X, C)` as another microscope might have taken them.

    Args:
        random: decides how.
        pixels: percentiles of the image at 0 and 1.
        strength: 0 = nothing changes, 1 = what the built-in network was first trained with.
    """
    count = pixels.shape[2]
    if random.random() < 0.5:
        exponent = np.float32(np.exp(strength * random.uniform(-0.6, 0.6)))
        pixels = np.power(np.maximum(pixels, 0) + np.float32(1e-4), exponent)
    if random.random() < 0.2 * strength:
        sigma = float(random.uniform(0.4, 1.4))
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma).reshape(pixels.shape)
    contrast = np.exp(strength * random.uniform(-0.3, 0.3, count))
    shift = strength * random.normal(0, 0.06, count)
    pixels = (pixels * contrast + shift).astype(np.float32)
    if random.random() < 0.3 * strength:
        noise = np.float32(random.uniform(0.01, 0.08))
        pixels = pixels + noise * random.standard_normal(pixels.shape, dtype=np.float32)
    return pixels


def _to_three(pixels: FloatArray, image: PreparedImage) -> FloatArray:
    channels = pixels.transpose(2, 0, 1)
    if len(channels) == 3:
        return np.ascontiguousarray(channels)
    if image.repeat_gray:
        return np.repeat(channels, 3, axis=0)
    return np.concatenate([channels, np.zeros((2, *channels.shape[1:]), np.float32)])
