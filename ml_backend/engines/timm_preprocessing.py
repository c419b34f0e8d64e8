"""Images to the input of a network of timm, and their size as numbers beside its features.

An image is letterboxed: enlarged or shrunk as a whole until it fits the network's input, and
padded with the median of its border, so that nothing is cut off or distorted. That makes a small
object and a large one alike, but in microscopy absolute size tells classes apart; so
`size_features` are appended to the network's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml_backend.domain import Pixels
from ml_backend.engines.normalisation import NormalisedImage, normalise, to_three_channels
from ml_backend.errors import ImageError, ModelError

FloatArray = npt.NDArray[np.float32]

SIZE_FEATURES: Final = 4  # numbers appended to the network's features
REFERENCE_EDGE: Final = 64.0  # pixels; an image of that height and width has size features 0
SIZE_WEIGHT: Final = 0.2  # of a size feature per unit of natural logarithm
_RESAMPLING: Final[Mapping[str, Image.Resampling]] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes a network's input."""

    channels: int  # 1 or 3
    height: int  # pixels
    width: int  # pixels
    mean: tuple[float, ...]  # one per channel, of values 0..1
    std: tuple[float, ...]
    interpolation: str  # a key of Pillow's filters, e.g. "bicubic"

    @classmethod
    def from_timm(cls, data_config: Mapping[str, Any]) -> Preprocessing:
        """Return what `timm.data.resolve_model_data_config` says, without its central crop.

        Raises:
            ModelError: the network takes neither one nor three channels.
        """
        channels, height, width = (int(number) for number in data_config["input_size"])
        if channels not in (1, 3):
            raise ModelError(
                f"The network takes {channels} channels; images can be given to networks of one or "
                "three only."
            )
        mean, std = (tuple(float(x) for x in data_config[key]) for key in ("mean", "std"))
        if channels == 1:  # timm keeps the three numbers of the network that it was made from
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        return cls(
            channels=channels,
            height=height,
            width=width,
            mean=mean,
            std=std,
            interpolation=str(data_config["interpolation"]),
        )

    def apply(self, pixels: Pixels) -> FloatArray:
        """Return (channels, height, width) float32 for an image (Y, X, C) of any data type.

        Raises:
            ImageError: it has no pixels.
        """
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise ImageError(
                f"An image of the shape {pixels.shape} has no pixels to embed; leave it out."
            )
        boxed = letterbox(
            unit_channels(pixels, self.channels),
            self.height,
            self.width,
            _RESAMPLING.get(self.interpolation, Image.Resampling.BICUBIC),
        )
        mean, std = (np.array(x, np.float32)[:, None, None] for x in (self.mean, self.std))
        return np.asarray((boxed - mean) / std, np.float32)


def unit_channels(pixels: Pixels, count: int) -> FloatArray:
    """Return an image (Y, X, C) as (count, Y, X) float32 in 0..1, gray repeated.

    8-bit values keep their meaning (0 black, 255 white); of any other data type each channel is
    mapped by its percentiles and cut off at 0 and 1. Of two channels the third is the mean, and
    those beyond the third are left out.

    Args:
        pixels: of any data type, C >= 1.
        count: 1 (the mean of the channels) or 3.
    """
    if pixels.dtype == np.uint8:
        channels = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
        blank = tuple(bool(channel.min() == channel.max()) for channel in channels)
        image = NormalisedImage(channels=channels / np.float32(255), blank=blank)
    else:
        mapped = normalise(pixels)
        image = NormalisedImage(channels=np.clip(mapped.channels, 0, 1), blank=mapped.blank)
    if len(image.channels) == 1:  # also where it is blank
        return np.broadcast_to(image.channels, (count, *pixels.shape[:2]))
    three = to_three_channels(image, repeat_gray=True)
    return three if count == 3 else three.mean(axis=0, keepdims=True)


def letterbox(
    channels: FloatArray, height: int, width: int, resampling: Image.Resampling
) -> FloatArray:
    """Return `channels: (C, Y, X)` in 0..1 as (C, height, width), whole and in proportion.

    It is scaled until it fits, put in the middle, and surrounded by the median of its border in
    each channel: the background, where an object fills the crop.
    """
    rows, columns = channels.shape[1:]
    scale = min(height / rows, width / columns)
    fitted = max(1, min(height, round(rows * scale))), max(1, min(width, round(columns * scale)))
    top, left = (height - fitted[0]) // 2, (width - fitted[1]) // 2
    gray = channels.strides[0] == 0  # one channel, repeated
    boxed = np.empty((1 if gray else len(channels), height, width), np.float32)
    for index in range(len(boxed)):
        channel = channels[index]
        edges = (channel[0], channel[-1], channel[:, 0], channel[:, -1])
        boxed[index] = np.median(np.concatenate(edges))
        # Pillow averages when it shrinks, as in the networks' training
        scaled = Image.fromarray(np.ascontiguousarray(channel)).resize(
            (fitted[1], fitted[0]), resampling
        )
        boxed[index, top : top + fitted[0], left : left + fitted[1]] = np.clip(
            np.asarray(scaled), 0, 1
        )
    return np.broadcast_to(boxed, (len(channels), height, width)) if gray else boxed


def size_features(height: int, width: int) -> FloatArray:
    """Return (SIZE_FEATURES,) float32 that say how large an image is, in pixels.

    They are the natural logarithms of height, width, longer and shorter edge over
    REFERENCE_EDGE, times SIZE_WEIGHT: an object twice as large is 0.28 away, beside network
    features of length 1.
    """
    edges = np.array([height, width, max(height, width), min(height, width)], np.float32)
    return np.asarray(SIZE_WEIGHT * np.log(edges / REFERENCE_EDGE), np.float32)
