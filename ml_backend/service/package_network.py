"""A network that is being packed: what it answers, and its files in the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ml_backend.domain import Component, LabelImage, Pixels
from ml_backend.engines.checkpoints import read_checkpoint
from ml_backend.engines.instances import InstanceOptions
from ml_backend.engines.normalisation import FloatArray
from ml_backend.engines.packaged.answers import (
    estimated_diameter,
    labels_of,
    network_channels,
    tile_answer,
    whole_answer,
)
from ml_backend.engines.packaged.architecture import PackagedArchitecture, packaged_architecture
from ml_backend.engines.packaged.plain_state import plain_state
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.engines.served_network import Traits, traits_of
from ml_backend.model_files.headers import is_safetensors, safetensors_header
from ml_backend.service.package_frame import PackageFrame, frame_of
from ml_backend.service.package_names import ARCHITECTURE, OWN_WEIGHTS, WEIGHTS

Load = Callable[[Component], nn.Module]


@dataclass(frozen=True, kw_only=True)
class PackedNetwork:
    """A network in float32 on the CPU, and how others will run it."""

    component: Component
    network: nn.Module = field(repr=False)
    traits: Traits
    frame: PackageFrame
    architecture: PackagedArchitecture
    options: InstanceOptions  # of the post-processing

    def answer(self, pixels: Pixels) -> FloatArray:
        """Return what the packaged network must answer, (3, Y, X), to `pixels: (Y, X, C)`."""
        channels = network_channels(pixels, self.traits)
        if self.architecture.tile is not None:
            return tile_answer(self.network, self.traits, channels, self.architecture.tile)
        return self.whole_answer(pixels)

    def whole_answer(self, pixels: Pixels) -> FloatArray:
        """Return the answer (3, Y, X) to an image of any size, with tiles where it needs them."""
        channels = network_channels(pixels, self.traits)
        return whole_answer(self.network, self.traits, channels, self.frame.scale)

    def labels(self, answer: FloatArray) -> LabelImage:
        """Return the label image that an answer describes."""
        return labels_of(answer, self.options)

    def enlargement(self, pixels: Pixels) -> float:
        """Return by how much to enlarge an image so that its objects have the size it knows."""
        if not self.traits.scale_bound or self.component.diameter is not None:
            return 1.0
        channels = network_channels(pixels, self.traits)
        diameter = estimated_diameter(self.network, self.traits, channels)
        return 1.0 if diameter is None else self.traits.diameter / diameter

    def write(self, folder: Path) -> None:
        """Write the file that builds the network, and its weights, to `folder`.

        Raises:
            ModelError: the weights cannot be read any more.
            OSError: the disk is full or cannot be written.
        """
        (folder / ARCHITECTURE).write_text(self.architecture.source, encoding="utf-8")
        torch.save(plain_state(self.network.state_dict()), folder / WEIGHTS)
        if isinstance(self.network, ResidualUNet):
            self._write_own(Path(self.component.path), folder / OWN_WEIGHTS, self.network)

    def _write_own(self, source: Path, target: Path, network: ResidualUNet) -> None:
        # to the byte, where the file says how its network is built
        if is_safetensors(source) and "config" in safetensors_header(source)[1]:
            shutil.copyfile(source, target)
            return
        metadata = {"config": json.dumps(network.config.to_json())}
        save_file(read_checkpoint(source), str(target), metadata=metadata)


def pack_network(
    component: Component,
    load: Load,
    options_at: Callable[[float], InstanceOptions],
) -> PackedNetwork:
    """Return a network with everything that is to be known for packing it.

    Args:
        component: What to pack.
        load: Returns its verified float32 network on the CPU.
        options_at: The post-processing's options at a scale, network pixels per image pixel.

    Raises:
        ModelError: it cannot be loaded, or networks of its kind cannot be packed.
    """
    network = load(component)
    traits = traits_of(network, component.architecture)
    frame = frame_of(component, traits)
    architecture = packaged_architecture(
        component.name, network, component.architecture, scale=frame.scale
    )
    return PackedNetwork(
        component=component,
        network=network,
        traits=traits,
        frame=frame,
        architecture=architecture,
        options=options_at(frame.scale),
    )
