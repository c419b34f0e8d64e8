"""A network ready to run on a device, and what a caller must know to feed it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ml_backend.domain import Component
from ml_backend.engines.catalogue import DINO_VITB, DINO_VITL
from ml_backend.engines.device_profile import (
    DeviceProfile,
    Precision,
    convert,
    measure,
    to_input,
)
from ml_backend.engines.networks import optimise_for_inference
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.engines.tiling import TilePlan, plan_convolution, plan_transformer
from ml_backend.errors import CheckpointInvalid

CELLPOSE_DIAMETER = 30.0  # pixels: `CellposeModel.eval` resizes objects to it
TRANSFORMER_TILE = 256  # pixels, cannot be changed for cpsam
DINO_TILE = 384
HALO = 64  # pixels; beyond it the built-in network's answer changes by less than bfloat16 rounds
MEASURED_TILE = 256  # pixels
TRIED_TILE = 64  # pixels: others wait for the device meanwhile

# A convolutional network: up to the first number a whole image is one tile, beyond it tiles have
# the second as edge. On a CPU a tile should fit the cache, on a GPU it should fill the device.
CPU_EDGES = (1280, 768)
GPU_EDGES = (2560, 1536)
CPU_BATCH_PIXELS = 512 * 512
GPU_BATCH_PIXELS = 4 * 1024 * 1024
TRANSFORMER_GPU_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Traits:
    """How a network wants its images."""

    diameter: float  # pixels: objects are resized to it
    scale_bound: bool  # finds nothing else; without a given diameter it must be estimated
    repeat_gray: bool  # gray images were repeated to three channels in training
    stride: int | None  # of a convolutional network; None = transformer
    tile: int  # pixels, of a transformer


def traits_of(network: nn.Module, architecture: str) -> Traits:
    """Return how `network` wants its images."""
    if isinstance(network, ResidualUNet):
        return Traits(
            diameter=network.config.diam_mean,
            scale_bound=True,
            repeat_gray=True,
            stride=network.config.stride,
            tile=0,
        )
    return Traits(
        diameter=CELLPOSE_DIAMETER,
        scale_bound=False,
        repeat_gray=False,
        stride=None,
        tile=DINO_TILE if architecture in (DINO_VITL, DINO_VITB) else TRANSFORMER_TILE,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedNetwork:
    """A network on its device; only the device's thread may run it."""

    component: Component
    traits: Traits
    profile: DeviceProfile
    device: torch.device
    precision: Precision
    network: nn.Module = field(repr=False)

    def plan(self, height: int, width: int) -> TilePlan:
        """Return the tiles of an image of this size (network frame)."""
        if self.traits.stride is None:
            return plan_transformer(height, width, tile=self.traits.tile)
        whole, edge = CPU_EDGES if self.device.type == "cpu" else GPU_EDGES
        if height * width <= whole**2 and max(height, width) <= 2 * whole:
            edge = max(height, width) + 3 * self.traits.stride
        return plan_convolution(height, width, stride=self.traits.stride, edge=edge, halo=HALO)

    def batch_for(self, tile_yx: tuple[int, int]) -> int:
        """Return how many tiles of this size to run at once."""
        cpu = self.device.type == "cpu"
        if self.traits.stride is None:
            return 1 if cpu else TRANSFORMER_GPU_BATCH
        pixels = CPU_BATCH_PIXELS if cpu else GPU_BATCH_PIXELS
        return max(1, pixels // (tile_yx[0] * tile_yx[1]))

    def run(self, tiles: Tensor) -> Tensor:
        """Return the answer to `tiles: (N, C, Y, X)`, on the device, not waited for."""
        with torch.inference_mode():
            answer: Tensor = self.network(to_input(tiles, self.device, self.precision))[0]
            return answer.float()


def serve_network(
    component: Component,
    network: nn.Module,
    device: torch.device,
    known: tuple[Precision, DeviceProfile] | None = None,
) -> ServedNetwork:
    """Return `network` (float32, on the CPU) ready on `device`.

    Args:
        component: what it is.
        network: is changed where that makes it faster.
        device: where it will run.
        known: an earlier measurement of the same architecture; None = measure.
    """
    traits = traits_of(network, component.architecture)
    network = optimise_for_inference(network)
    if known is None:
        tile = traits.tile if traits.stride is None else MEASURED_TILE
        tiles = torch.from_numpy(_blobs(tile, traits.diameter))
        known = measure(network, device, tiles, convolutional=traits.stride is not None)
    precision, profile = known
    return ServedNetwork(
        component=component,
        traits=traits,
        profile=profile,
        device=device,
        precision=precision,
        network=convert(network, device, precision),
    )


def try_network(served: ServedNetwork) -> None:
    """Run `served` once on its device; only the device's thread may call this.

    Raises:
        CheckpointInvalid: it answers with something else than finite numbers.
    """
    edge = served.traits.tile if served.traits.stride is None else TRIED_TILE
    answer = served.run(torch.from_numpy(_blobs(edge, served.traits.diameter)))
    if not bool(torch.isfinite(answer).all()):
        raise CheckpointInvalid(
            f"The network {served.component.name!r} answers with numbers that are not finite; "
            "train it again, with a smaller learning rate."
        )


def _blobs(edge: int, diameter: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    # (1, 3, edge, edge): soft discs on a grid, so that the answer is not all background
    y, x = np.mgrid[:edge, :edge].astype(np.float32)
    pitch = 1.5 * diameter
    distance = np.hypot(y % pitch - pitch / 2, x % pitch - pitch / 2)
    image = 1.0 / (1.0 + np.exp(distance - diameter / 2)) + 0.05 * np.sin(y * 0.7 + x * 1.3)
    return np.broadcast_to(image.astype(np.float32), (1, 3, edge, edge)).copy()
