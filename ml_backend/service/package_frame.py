"""How large an image a packaged network takes, and how it is resized inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ml_backend.domain import Component
from ml_backend.engines.served_network import HALO, Traits

TRANSFORMER_HALO: Final = 32  # network pixels of a tile that others should not take from it
ROOM: Final = 64  # network pixels between the halos of the smallest image


@dataclass(frozen=True, kw_only=True)
class PackageFrame:
    """Sizes in image pixels, by which programs cut images into tiles."""

    scale: float  # network pixels per image pixel
    least: int  # of a side
    step: int  # sides are `least` plus a multiple of it; 0 = `least` and nothing else
    halo: int  # of the answer, from each edge, that a neighbouring tile knows better


def frame_of(component: Component, traits: Traits) -> PackageFrame:
    """Return the frame of a network: images as they are, where the size of its objects is known."""
    scale = 1.0 if component.diameter is None else traits.diameter / component.diameter
    if traits.stride is None:
        return PackageFrame(
            scale=scale,
            least=max(1, round(traits.tile / scale)),
            step=0,
            halo=math.ceil(TRANSFORMER_HALO / scale),
        )
    halo = math.ceil(HALO / scale)
    smallest = 2 * halo + math.ceil(ROOM / scale)
    least = math.ceil(smallest / traits.stride) * traits.stride
    return PackageFrame(scale=scale, least=least, step=traits.stride, halo=halo)
