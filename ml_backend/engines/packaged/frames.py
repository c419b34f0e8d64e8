"""Images to what a network was trained on, and its answer back, as operations of torch.

The same as `engines.normalisation` and `engines.tiling` do with arrays. Sizes stay tensors where
they are computed, so that a trace holds for images of any size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def three_channels(x: Tensor, *, repeat_gray: bool) -> Tensor:
    """x: (N, C, Y, X) with C up to 3 -> (N, 3, Y, X).

    With `repeat_gray` one channel is repeated and of two the third is the mean; otherwise missing
    channels are 0.
    """
    count = int(x.shape[1])
    if count == 3:
        return x
    if not repeat_gray:
        return F.pad(x, (0, 0, 0, 0, 0, 3 - count))
    if count == 1:
        return x.expand(-1, 3, -1, -1)
    return torch.cat([x, x.mean(dim=1, keepdim=True)], dim=1)


def scaled(length: Tensor | int, scale: float) -> Tensor:
    """Return `length` times `scale` in whole pixels, rounded down."""
    return (torch.as_tensor(length, dtype=torch.float64) * scale).floor().long().clamp(min=1)


def resample(x: Tensor, height: Tensor | int, width: Tensor | int, *, average: bool) -> Tensor:
    """x: (N, C, Y, X) -> (N, C, height, width), interpolated linearly, or averaged over areas."""
    rows = _weights(x.shape[2], height, average).to(device=x.device, dtype=x.dtype)
    columns = _weights(x.shape[3], width, average).to(device=x.device, dtype=x.dtype)
    return rows @ x @ columns.T


def _weights(length: Tensor | int, target: Tensor | int, average: bool) -> Tensor:
    # (target, length): what each pixel of the result takes of each pixel there is
    size = torch.as_tensor(length, dtype=torch.float64)
    wanted = torch.as_tensor(target, dtype=torch.float64)
    places = _counted(size)
    step = size / wanted
    results = _counted(wanted)[:, None]
    if average:
        first, last = results * step, (results + 1) * step
        shared = torch.minimum(last, places + 1) - torch.maximum(first, places)
        areas: Tensor = shared.clamp(min=0) / step
        return areas
    middle: Tensor = torch.minimum(((results + 0.5) * step - 0.5).clamp(min=0), size - 1)
    near: Tensor = (1 - (middle - places).abs()).clamp(min=0)
    return near


def _counted(count: Tensor) -> Tensor:
    # 0, 1, ...; torch takes a number that is a tensor, but does not say so
    numbers: Tensor = torch.arange(count)  # type: ignore[call-overload]
    return numbers
