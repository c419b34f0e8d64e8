"""Images, cached flows and random crops for `train_builtin_network.py`."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from cellpose import dynamics, utils

FloatArray = npt.NDArray[np.float32]

# How often a crop comes from each kind of image. In the data most images are one kind.
KIND_WEIGHTS = {
    "fluorescence_small": 0.30,
    "fluorescence_large": 0.12,
    "fluorescence_wide": 0.16,
    "histology_dark": 0.15,
    "histology_light": 0.14,
    "brightfield": 0.13,
}
# Objects larger than this many target diameters are shrunk once, with area averaging, when loading.
LARGEST_BASE_SCALE = 1.5
# An object cut by the image's edge has its centre inside the image, one cut by the crop's edge has
# not; the network tells them apart by the black beyond the image's edge: at most so many pixels.
MOST_OUTSIDE = 28.0
# Extra weight in the loss where two objects touch.
CONTACT_WEIGHT = 3.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, its masks' flows and what is needed to crop it."""

    stem: str
    kind: str
    image: FloatArray  # (Y, X, 1 or 3), 1st and 99th percentile of each channel at 0 and 1
    target: FloatArray  # (Y, X, 4): Y-flow, X-flow, inside an object, weight in the loss
    centres: npt.NDArray[np.int32]  # (instances, 2): row, column of a pixel in each object
    diameter: float  # median, in pixels of `image`


def kind_of(image: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint16]) -> str:
    """image: (Y, X) or (Y, X, 3); masks: (Y, X), 0 = background -> a key of KIND_WEIGHTS."""
    if image.ndim == 3:
        return "histology_dark" if float(np.median(image)) < 195 else "histology_light"
    if masks.any() and np.median(image[masks == 0]) > np.median(image[masks > 0]):
        return "brightfield"
    height, width = masks.shape
    if (height, width) == (256, 256):
        return "fluorescence_small"
    return "fluorescence_large" if height == width else "fluorescence_wide"


def normalise(image: npt.NDArray[Any]) -> FloatArray:
    """image: (Y, X, C) -> float32; each channel's 1st percentile becomes 0, its 99th 1."""
    out = np.zeros(image.shape, np.float32)
    for c in range(image.shape[2]):
        low, high = np.percentile(image[..., c], (1, 99))
        if high - low > 1e-3:
            out[..., c] = (image[..., c] - low) / (high - low)
    return out


def load_sample(folder: Path, stem: str, diam_mean: float, cache: Path) -> Sample:
    """Read one image with its masks; flows come from `cache` when they were computed before."""
    raw = cv2.imread(str(folder / "images" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    masks = cv2.imread(str(folder / "masks" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    if raw is None or masks is None:
        raise FileNotFoundError(f"{stem}: image or masks are missing below {folder}")
    kind = kind_of(raw, masks)
    image = normalise(raw[..., None] if raw.ndim == 2 else raw[..., 2::-1])
    diameter = max(float(utils.diameters(masks)[0]), 5.0)
    shrink = min(1.0, LARGEST_BASE_SCALE * diam_mean / diameter)
    if shrink < 1.0:
        size = (round(masks.shape[1] * shrink), round(masks.shape[0] * shrink))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        image = image[..., None] if image.ndim == 2 else image
        masks = cv2.resize(masks, size, interpolation=cv2.INTER_NEAREST)
        diameter *= shrink
    cached = cache / f"{stem}-{diam_mean:g}.npy"
    if cached.exists():
        flows = np.load(cached, allow_pickle=False)
    else:
        labels = np.unique(masks, return_inverse=True)[1].reshape(masks.shape).astype(np.int32)
        flows = dynamics.labels_to_flows([labels], device=torch.device("cpu"))[0][-2:]
        flows = flows.astype(np.float16)
        aside = cached.with_suffix(f".{os.getpid()}.npy")  # the other processes read it as well
        np.save(aside, flows, allow_pickle=False)
        aside.replace(cached)
    target = np.empty((*masks.shape, 4), np.float32)
    target[..., 0], target[..., 1] = flows
    target[..., 2] = masks > 0
    target[..., 3] = 1.0 + CONTACT_WEIGHT * contact_map(masks)
    centres = [
        pixels[len(pixels) // 2]
        for pixels in (np.argwhere(masks == k) for k in np.unique(masks) if k)
    ]
    return Sample(stem, kind, image, target, np.array(centres, np.int32).reshape(-1, 2), diameter)


def contact_map(masks: npt.NDArray[np.uint16]) -> FloatArray:
    """masks: (Y, X) -> (Y, X) in 0..1, 1 where two objects touch, fading over about two pixels."""
    labels = masks.astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(labels, kernel)
    lowest = cv2.erode(np.where(labels > 0, labels, np.float32(1e9)), kernel)
    touching = ((lowest < highest) & (highest > 0) & (lowest < 1e9)).astype(np.float32)
    near: FloatArray = np.minimum(cv2.GaussianBlur(touching, (0, 0), 1.0) * 1.5, 1.0)
    return near.astype(np.float32)


def load_samples(folder: Path, diam_mean: float, cache: Path) -> list[Sample]:
    """Every image of `folder` that has masks, in the order of their names."""
    cache.mkdir(parents=True, exist_ok=True)
    stems = sorted(path.stem for path in (folder / "images").glob("*.png"))
    return [load_sample(folder, stem, diam_mean, cache) for stem in stems]


def split(samples: list[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """Training and validation part: of each kind the share with the lowest hash, at least one."""
    held_out: set[str] = set()
    for kind in KIND_WEIGHTS:
        stems = [sample.stem for sample in samples if sample.kind == kind]
        stems.sort(key=lambda stem: hashlib.sha256(stem.encode()).hexdigest())
        held_out.update(stems[: max(1, round(len(stems) * share))])
    return (
        [sample for sample in samples if sample.stem not in held_out],
        [sample for sample in samples if sample.stem in held_out],
    )


def random_scale(rng: np.random.Generator, sample: Sample, diam_mean: float) -> float:
    """Crop pixels per image pixel: most objects come out near `diam_mean`, some far from it."""
    low, high = (0.35, 2.6) if rng.random() < 0.1 else (0.65, 1.6)
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return factor * diam_mean / sample.diameter


def random_crop(
    rng: np.random.Generator, sample: Sample, size: int, diam_mean: float
) -> tuple[FloatArray, FloatArray]:
    """A turned, mirrored and scaled crop: image (size, size, 3), target (size, size, 4)."""
    scale = random_scale(rng, sample, diam_mean)
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.6 else rng.integers(4) * np.pi / 2
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([1.0, rng.choice((-1.0, 1.0))])
    height, width = sample.image.shape[:2]
    if len(sample.centres) and rng.random() < 0.8:
        row, column = sample.centres[rng.integers(len(sample.centres))]
        middle = np.array([column, row]) + rng.uniform(-0.35, 0.35, 2) * size / scale
    else:
        middle = rng.uniform(0, 1, 2) * (width, height)
    # Mostly inside the image; what is outside is black, as where a whole image is padded.
    inside = 0.5 * size - rng.uniform(0, MOST_OUTSIDE)
    margin = np.minimum(inside / scale, (width / 2, height / 2))
    middle = np.clip(middle, margin, np.array((width, height)) - margin)
    # OpenCV's columns come first: (x, y) of the crop -> (x, y) of the image.
    linear = turn / scale
    offset = middle - linear @ np.array([(size - 1) / 2, (size - 1) / 2])
    matrix = np.column_stack([linear, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(sample.image, matrix, (size, size), flags=flags)
    target = cv2.warpAffine(sample.target, matrix, (size, size), flags=flags)
    flow_y, flow_x = target[..., 0].copy(), target[..., 1].copy()
    target[..., 1] = turn[0, 0] * flow_x + turn[1, 0] * flow_y
    target[..., 0] = turn[0, 1] * flow_x + turn[1, 1] * flow_y
    target[..., 2] = target[..., 2] > 0.5
    image = augment(rng, image[..., None] if image.ndim == 2 else image)
    return image * (target[..., 3:] > 0.5), target


def augment(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """image: (Y, X, 1 or 3), percentiles at 0 and 1 -> (Y, X, 3) of another look, same scale."""
    gray = image.shape[2] == 1
    if not gray and rng.random() < 0.12:
        image, gray = (image @ rng.dirichlet((2.0, 2.0, 2.0)).astype(np.float32))[..., None], True
    if not gray and rng.random() < 0.12:
        image = image[..., rng.permutation(3)]
    if not gray and rng.random() < 0.3:
        mix = np.eye(3, dtype=np.float32) + rng.normal(0, 0.12, (3, 3)).astype(np.float32)
        image = image @ (mix / mix.sum(axis=1, keepdims=True)).T
    if rng.random() < (0.12 if gray else 0.04):
        image = 1.0 - image
    if rng.random() < 0.5:
        base = np.clip(image, 0, None) + np.float32(1e-4)
        image = np.power(base, np.float32(np.exp(rng.uniform(-0.6, 0.6))), dtype=np.float32)
    if rng.random() < 0.2:
        sigma = float(rng.uniform(0.4, 1.4))
        image = cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)
    contrast = np.exp(rng.uniform(-0.3, 0.3, 1 if gray else 3))
    shift = rng.normal(0, 0.06, 1 if gray else 3)
    image = (image * contrast + shift).astype(np.float32)
    if rng.random() < 0.3:
        strength = np.float32(rng.uniform(0.01, 0.08))
        image = image + strength * rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.1:
        ramp = np.linspace(-1, 1, image.shape[0], dtype=np.float32) * np.float32(
            rng.uniform(-0.3, 0.3)
        )
        image = image + (ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None])
    if not gray:
        return np.ascontiguousarray(image, np.float32)
    image = np.repeat(image, 3, axis=2)
    if rng.random() < 0.08:
        image[..., rng.permutation(3)[: rng.integers(1, 3)]] = 0.0
    return image


class CropLoader:
    """An endless stream of batches made in background threads."""

    def __init__(
        self,
        samples: list[Sample],
        batch: int,
        size: int,
        diam_mean: float,
        seed: int,
        threads: int,
    ) -> None:
        self._by_kind = {
            kind: [sample for sample in samples if sample.kind == kind] for kind in KIND_WEIGHTS
        }
        self._batch, self._size, self._diam_mean = batch, size, diam_mean
        self._ready: queue.Queue[tuple[torch.Tensor, torch.Tensor]] = queue.Queue(maxsize=4)
        for child in np.random.default_rng(seed).spawn(threads):
            threading.Thread(target=self._fill, args=(child,), daemon=True).start()

    def _fill(self, rng: np.random.Generator) -> None:
        kinds = [kind for kind, found in self._by_kind.items() if found]
        weights = np.array([KIND_WEIGHTS[kind] for kind in kinds])
        while True:
            images, targets = [], []
            for kind in rng.choice(kinds, self._batch, p=weights / weights.sum()):
                found = self._by_kind[str(kind)]
                sample = found[rng.integers(len(found))]
                image, target = random_crop(rng, sample, self._size, self._diam_mean)
                images.append(image.transpose(2, 0, 1))
                targets.append(target.transpose(2, 0, 1))
            self._ready.put(
                (torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets)))
            )

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of images (N, 3, size, size) and targets (N, 4, size, size)."""
        while True:
            yield self._ready.get()
