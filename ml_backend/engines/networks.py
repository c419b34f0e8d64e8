"""Components to torch modules with Cellpose's interface.

Every network answers `net(x)[:2]` with (flows and cell probability, style): (N, 3, Y, X) and
(N, features), and has `device`, `dtype`, `backbone`, `diam_mean`, `diam_labels`, as
`cellpose.core.run_net`, `cellpose.dynamics` and the losses of `cellpose.train` want it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from cellpose import models, vit
from torch import nn

from ml_backend.domain import Component
from ml_backend.engines.attention import speed_up_attention
from ml_backend.engines.catalogue import (
    DINO_VITB,
    DINO_VITL,
    RESIDUAL_UNET,
    SAM_VITL,
    file_sha256,
    manifest_of,
    require_package,
)
from ml_backend.engines.checkpoint_keys import is_safetensors, safetensors_header
from ml_backend.engines.checkpoints import load_strictly
from ml_backend.engines.lora import read_state
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig, fold_batch_norm
from ml_backend.errors import CheckpointInvalid, ModelError

Builder = Callable[[Path], nn.Module]


def _build_residual_unet(path: Path) -> nn.Module:
    try:
        config = ResidualUNetConfig.from_json(_network_config(path))
    except (ValueError, TypeError) as error:
        raise CheckpointInvalid(f"{path} describes an impossible network: {error}.") from error
    return ResidualUNet(config)


def _network_config(path: Path) -> Mapping[str, object]:
    # in the file itself, else in the manifest beside it
    metadata = safetensors_header(path)[1] if is_safetensors(path) else {}
    if "config" in metadata:
        config = json.loads(metadata["config"])
    else:
        config = manifest_of(path).get("architecture", {}).get("config")
    if not isinstance(config, dict):
        raise CheckpointInvalid(
            f"Neither {path} nor its manifest says how its network is built (`config`)."
        )
    return config


def _build_sam(_: Path) -> nn.Module:
    network: nn.Module = vit.CPSAM()
    return network


def _build_dino(size: str) -> Builder:
    def build(_: Path) -> nn.Module:
        network: nn.Module = vit.CPDINO(model_name=size)
        return network

    return build


BUILDERS: Mapping[str, Builder] = {
    RESIDUAL_UNET: _build_residual_unet,
    SAM_VITL: _build_sam,
    DINO_VITL: _build_dino("vitl"),
    DINO_VITB: _build_dino("vitb"),
}


def load_network(
    component: Component,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    builders: Mapping[str, Builder] = BUILDERS,
) -> nn.Module:
    """Return the network of `component`, verified, in evaluation mode, without gradients.

    Args:
        component: what to load; its file must still have its hash.
        device: where to put it.
        dtype: of its weights.
        builders: a function per architecture that builds it from the checkpoint's path.

    Raises:
        CheckpointInvalid: the file changed, is damaged or belongs to another architecture.
        ModelNotFound: the file is gone.
        ModelError: the architecture is unknown or needs a package that is missing.
    """
    path = Path(component.path)
    if component.architecture not in builders:
        raise ModelError(
            f"{component.name!r} has the architecture {component.architecture!r}, which this "
            f"version cannot build; it knows {', '.join(builders)}."
        )
    require_package(component.architecture, component.name)
    if file_sha256(path) != component.sha256:
        raise CheckpointInvalid(
            f"The weights of {component.name!r} changed on disk since they were registered; "
            "register the model again."
        )
    # no memory, and no time for random numbers that are overwritten anyway
    with torch.device("meta"):
        network = builders[component.architecture](path)
    load_strictly(network, read_state(path), source=path.name)
    restore_constants(network)
    network.requires_grad_(False)
    network.eval()
    return move_network(network, device, dtype)


def restore_constants(network: nn.Module) -> None:
    """Give real values to the tensors that are no part of a state dictionary."""
    if isinstance(network, ResidualUNet):
        diameter = torch.tensor([network.config.diam_mean])
        network.diam_mean, network.diam_labels = diameter, diameter.clone()


def move_network(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return `network` on `device` in `dtype`; Cellpose's own networks are told their type."""
    network.to(device=device, dtype=dtype)
    if isinstance(network, vit.BaseModel):
        network._dtype = dtype  # its setter would move the weights a second time
    return network


def optimise_for_inference(network: nn.Module) -> nn.Module:
    """Return a faster equivalent of a float32 network on the CPU; its keys may differ."""
    if isinstance(network, ResidualUNet):
        return fold_batch_norm(network)
    speed_up_attention(network)
    return network


class StockModel(models.CellposeModel):  # type: ignore[misc]  # cellpose has no annotations
    """Cellpose's own model class around any network, for comparison and export."""

    def __init__(self, network: nn.Module, *, device: torch.device) -> None:
        self.net = network
        self.device = device
        self.gpu = device.type in ("cuda", "mps")
        self.backbone = "sam_vitl"  # decides the tile size, 256 px, and nothing else
        self.pretrained_model = "in memory"


def cellpose_hub() -> str:
    """Return the address that Cellpose downloads its weights from, ending in a slash."""
    return str(models._MODEL_URL)
