"""An image to what a network says about it: flows and cell probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ml_backend.domain import Component, Image, SegmentationOptions, Urgency
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.instances import InstanceOptions, find_instances
from ml_backend.engines.network_store import NetworkStore
from ml_backend.engines.normalisation import FloatArray, normalise, resize, to_three_channels
from ml_backend.engines.scale import Look, equivalent_diameters, estimate_scale
from ml_backend.engines.served_network import ServedNetwork

MOST_NETWORK_PIXELS = 100_000_000  # 1.2 GB for three channels; larger images are enlarged less
MOST_STEPS = 4000
STEPS = 200  # of the flow dynamics, where objects have the network's diameter
LOOK_EDGE = 1024  # network pixels: of a larger image one window is searched for its scale
LOOK_OPTIONS = InstanceOptions(
    flow_threshold=0.4, cellprob_threshold=0.0, iterations=STEPS, min_size=15
)


@dataclass(frozen=True, kw_only=True)
class FlowField:
    """What a network said about an image, in the image frame."""

    flows: FloatArray  # (2, Y, X), Y and X flow, five times as long as a unit vector
    cell_probability: FloatArray  # (Y, X) logits
    steps: int  # of the flow dynamics that fit its objects
    diameter: float | None  # of an object, image frame: given or estimated; None = not needed
    notes: tuple[str, ...] = ()  # a sentence each

    @property
    def size(self) -> int:
        """Return the bytes it takes."""
        return self.flows.nbytes + self.cell_probability.nbytes


def compute_flow_field(
    networks: NetworkStore,
    image: Image,
    options: SegmentationOptions,
    component: Component,
    priority: Urgency,
) -> FlowField:
    """Return what the network of `component` says about `image`.

    Raises:
        ModelError, OutOfMemory, EngineError
    """
    network = networks.get(component, priority=priority)
    normalised = normalise(image.pixels, clahe=options.clahe)
    shape = (image.height, image.width)
    if all(normalised.blank):
        return no_flow_field(shape, options.diameter)
    channels = to_three_channels(normalised, repeat_gray=network.traits.repeat_gray)
    answer_at = partial(_answer, networks.device, network, priority=priority)
    if options.diameter is not None:
        scale = network.traits.diameter / options.diameter
        scale, diameter = min(scale, largest_scale(shape)), options.diameter
    elif network.traits.scale_bound:
        return _estimated_field(channels, network, answer_at)
    else:
        scale, diameter = 1.0, None
    return _to_field(answer_at(channels, scale), shape, scale, diameter)


def no_flow_field(shape: tuple[int, int], diameter: float | None) -> FlowField:
    """Return the flow field of an image of `shape`, (Y, X) pixels, with nothing to see."""
    return FlowField(
        flows=np.zeros((2, *shape), np.float32),
        cell_probability=np.full(shape, -10.0, np.float32),
        steps=STEPS,
        diameter=diameter,
    )


def _estimated_field(
    channels: FloatArray,
    network: ServedNetwork,
    answer_at: Callable[[FloatArray, float], FloatArray],
) -> FlowField:
    height, width = channels.shape[1:]
    whole: dict[float, FloatArray] = {}  # answers to the whole image, which need no second run

    def look(scale: float) -> Look:
        window = _window(channels, scale)
        answer = answer_at(window, scale)
        if window.shape == channels.shape:
            whole.clear()
            whole[scale] = answer
        found = find_instances(answer[:2], answer[2], LOOK_OPTIONS)
        return Look(scale=scale, diameters=equivalent_diameters(found.labels), scores=found.scores)

    estimate = estimate_scale(look, network.traits.diameter)
    scale = min(estimate.scale if estimate else 1.0, largest_scale((height, width)))
    answer = whole[scale] if scale in whole else answer_at(channels, scale)
    diameter = estimate.diameter if estimate else None
    return _to_field(answer, (height, width), scale, diameter)


def largest_scale(shape: tuple[int, int]) -> float:
    """Return how much an image of `shape`, (Y, X) pixels, may be enlarged for a network."""
    return max(1.0, math.sqrt(MOST_NETWORK_PIXELS / (shape[0] * shape[1])))


def _window(channels: FloatArray, scale: float) -> FloatArray:
    """Return the part of `channels: (C, Y, X)` with the most contrast, LOOK_EDGE network pixels."""
    height, width = channels.shape[1:]
    edge = int(LOOK_EDGE / scale)
    if height * width <= edge * edge:
        return channels
    size_y, size_x = min(edge, height), min(edge, width)
    best, place = -1.0, (0, 0)
    for top in range(0, height - size_y + 1, max(1, size_y // 2)):
        for left in range(0, width - size_x + 1, max(1, size_x // 2)):
            step = max(1, edge // 256)
            part = channels[:, top : top + size_y : step, left : left + size_x : step]
            contrast = float(np.clip(part, 0.0, 1.0).std())
            if contrast > best:
                best, place = contrast, (top, left)
    top, left = place
    return channels[:, top : top + size_y, left : left + size_x]


def _answer(
    device: DeviceThread,
    network: ServedNetwork,
    channels: FloatArray,
    scale: float,
    *,
    priority: Urgency,
) -> FloatArray:
    """Return the network's answer (3, Y, X), network frame, to `channels: (3, Y, X)`."""
    height = max(1, int(channels.shape[1] * scale))
    width = max(1, int(channels.shape[2] * scale))
    resized = resize(channels, height, width, average=network.traits.scale_bound)
    plan = network.plan(height, width)
    answer = np.zeros((3, height, width), np.float32)
    for index, tile in device.run_tiles(
        network,
        partial(plan.cut, resized),
        len(plan),
        plan.tile_yx,
        priority=priority,
    ):
        plan.stitch(answer, index, tile)
    return answer


def _to_field(
    answer: FloatArray, shape: tuple[int, int], scale: float, diameter: float | None
) -> FlowField:
    # objects far smaller or larger than the network's need fewer or more steps in the image frame
    back = resize(answer, *shape, average=False)
    return FlowField(
        flows=back[:2],
        cell_probability=back[2],
        steps=min(MOST_STEPS, max(1, int(STEPS / scale))),
        diameter=diameter,
    )
