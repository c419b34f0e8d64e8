"""What a network answers in float32 on the CPU: the numbers that are promised to others.

The engine may answer in bfloat16 and on a GPU; what goes into a package must not depend on that.
Everything else is what the engine does: tiles, frames, resizing, dynamics.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ml_backend.domain import LabelImage, Pixels
from ml_backend.engines.flow_field import LOOK_OPTIONS, MOST_STEPS, STEPS
from ml_backend.engines.instances import InstanceOptions, find_instances
from ml_backend.engines.normalisation import FloatArray, normalise, resize, to_three_channels
from ml_backend.engines.scale import Look, equivalent_diameters, estimate_scale
from ml_backend.engines.served_network import HALO, Traits
from ml_backend.engines.tiling import plan_convolution, plan_transformer


def network_channels(pixels: Pixels, traits: Traits) -> FloatArray:
    """Return `pixels: (Y, X, C)` as the network wants them, (3, Y, X), image frame."""
    return to_three_channels(normalise(pixels), repeat_gray=traits.repeat_gray)


def whole_answer(
    network: nn.Module, traits: Traits, channels: FloatArray, scale: float
) -> FloatArray:
    """Return the network's answer (3, Y, X) to an image of any size, image frame.

    Args:
        network: float32, on the CPU.
        traits: of it.
        channels: (3, Y, X), as `network_channels` returns them.
        scale: network pixels per image pixel.
    """
    answer = _answer_at(network, traits, channels, scale)
    return resize(answer, *channels.shape[1:], average=False)


def estimated_diameter(network: nn.Module, traits: Traits, channels: FloatArray) -> float | None:
    """Return the diameter of an image's objects in its pixels, None where nothing is found.

    Args:
        network: float32, on the CPU; bound to a scale.
        traits: of it.
        channels: (3, Y, X), as `network_channels` returns them; not large.
    """

    def look(scale: float) -> Look:
        answer = _answer_at(network, traits, channels, scale)
        found = find_instances(answer[:2], answer[2], LOOK_OPTIONS)
        return Look(scale=scale, diameters=equivalent_diameters(found.labels), scores=found.scores)

    estimate = estimate_scale(look, traits.diameter)
    return None if estimate is None else estimate.diameter


def tile_answer(network: nn.Module, traits: Traits, channels: FloatArray, tile: int) -> FloatArray:
    """Return a transformer's answer (3, Y, X) to an image that is resized to one tile."""
    height, width = channels.shape[1:]
    resized = resize(channels, tile, tile, average=traits.scale_bound)
    return resize(_answer(network, resized), height, width, average=False)


def steps_at(scale: float) -> int:
    """Return how many steps of the dynamics objects need in the image frame."""
    return min(MOST_STEPS, max(1, int(STEPS / scale)))


def labels_of(answer: FloatArray, options: InstanceOptions) -> LabelImage:
    """Return the label image (Y, X) that a network's `answer: (3, Y, X)` describes."""
    return find_instances(answer[:2], answer[2], options).labels


def _answer_at(
    network: nn.Module, traits: Traits, channels: FloatArray, scale: float
) -> FloatArray:
    # (3, Y, X), network frame
    height, width = channels.shape[1:]
    rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
    resized = resize(channels, rows, columns, average=traits.scale_bound)
    if traits.stride is None:
        plan = plan_transformer(rows, columns, tile=traits.tile)
    else:
        edge = max(rows, columns) + 3 * traits.stride  # one tile
        plan = plan_convolution(rows, columns, stride=traits.stride, edge=edge, halo=HALO)
    answer = np.zeros((3, rows, columns), np.float32)
    for index in range(len(plan)):
        plan.stitch(answer, index, _answer(network, plan.cut(resized, index)))
    return answer


def _answer(network: nn.Module, tile: FloatArray) -> FloatArray:
    with torch.inference_mode():
        answer = network(torch.from_numpy(tile.copy())[None])[0]
    numbers: FloatArray = answer[0].numpy()
    return numbers
