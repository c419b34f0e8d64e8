"""Small networks, checkpoints and images for the tests of the engines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ml_backend.domain import Component, Image
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.catalogue import RESIDUAL_UNET
from ml_backend.engines.device_profile import DeviceProfile, Precision
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.engines.served_network import ServedNetwork, Traits

Labels = npt.NDArray[np.int32]
TINY = ResidualUNetConfig(channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(1,))
PLAIN = Precision(dtype=torch.float32, channels_last=False)


class Doubling(nn.Module):
    """Answers twice its input and notes the size of every batch."""

    def __init__(self, largest_batch: int = 1000, poison: float | None = None) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.tried: list[int] = []
        self.largest_batch = largest_batch
        self.poison = poison

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, Y, X), same shape out."""
        self.tried.append(len(x))
        if len(x) > self.largest_batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if self.poison is not None and bool((x == self.poison).any()):
            raise ValueError("a poisoned tile")
        self.batches.append(len(x))
        return 2 * x, x.mean(dim=(2, 3))


def served(module: nn.Module, *, sha256: str = "ab" * 32) -> ServedNetwork:
    """Return `module` as a transformer on the CPU."""
    return ServedNetwork(
        component=Component(
            name="fake", architecture="fake", sha256=sha256, path="", licence="none"
        ),
        traits=Traits(diameter=30.0, scale_bound=False, repeat_gray=False, stride=None, tile=16),
        profile=DeviceProfile(
            device="cpu", device_name="CPU", precision=PLAIN.name, tile_ms={}, disagreement={}
        ),
        device=torch.device("cpu"),
        precision=PLAIN,
        network=module,
    )


@pytest.fixture
def device_thread() -> Iterator[DeviceThread]:
    """A device thread on the CPU."""
    with DeviceThread(torch.device("cpu")) as thread:
        yield thread


SaveTiny = Callable[..., Component]


@pytest.fixture
def save_tiny(tmp_path: Path) -> SaveTiny:
    """A function that saves a small residual U-Net and returns its component."""

    def save(name: str = "tiny", seed: int = 0, config: ResidualUNetConfig = TINY) -> Component:
        torch.manual_seed(seed)
        network = ResidualUNet(config)
        path = tmp_path / f"{name}.safetensors"
        save_file(
            network.state_dict(), str(path), metadata={"config": json.dumps(config.to_json())}
        )
        return Component(
            name=name,
            architecture=RESIDUAL_UNET,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            path=str(path),
            licence="CC0-1.0",
        )

    return save


def discs(diameter: float, count: int, edge: int, seed: int = 0) -> tuple[Image, Labels]:
    """Return an image of bright discs on a dark ground that do not touch, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.zeros((edge, edge), np.int32)
    number = 0
    for _ in range(count * 20):
        centre = random.uniform(diameter / 2, edge - diameter / 2, 2)
        radius = diameter / 2 * random.uniform(0.9, 1.1)
        first, last = np.maximum(centre - radius - 3, 0).astype(int), centre + radius + 4
        around = labels[first[0] : int(last[0]), first[1] : int(last[1])]
        y, x = np.indices(around.shape)
        distance = np.hypot(y + first[0] - centre[0], x + first[1] - centre[1])
        if number < count and not around[distance < radius + 2].any():
            number += 1
            around[distance < radius] = number
    brightness = random.uniform(0.7, 1.0, number + 1)[labels] * 170 * (labels > 0)
    pixels = np.clip(brightness + random.normal(20, 5, labels.shape), 0, 255).astype(np.uint8)
    return Image(pixels=pixels[..., None], sha256=f"discs {diameter} {edge} {seed}"), labels
