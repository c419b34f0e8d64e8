"""Weights are loaded strictly, and a loaded network is what Cellpose expects."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cellpose import vit
from safetensors.torch import load_file, save_file
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn

from ml_backend.domain import Component
from ml_backend.engines.attention import speed_up_attention
from ml_backend.engines.catalogue import SAM_VITL, architecture_of, resolve_component
from ml_backend.engines.checkpoints import load_strictly
from ml_backend.engines.networks import StockModel, load_network, optimise_for_inference
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.errors import CheckpointInvalid, ModelError, ModelNotFound
from tests.unit.engines.conftest import SaveTiny

CPU = torch.device("cpu")
Change = Callable[[dict[str, Tensor]], None]


def resaved(component: Component, change: Change) -> Component:
    """Return the component with its weights changed and hashed again."""
    path = Path(component.path)
    state = load_file(str(path))
    change(state)
    metadata = {"config": _config(path)}
    save_file(state, str(path), metadata=metadata)
    return dataclasses.replace(component, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _config(path: Path) -> str:
    from ml_backend.engines.checkpoint_keys import safetensors_header

    return safetensors_header(path)[1]["config"]


def test_a_saved_network_is_loaded_number_for_number(save_tiny: SaveTiny) -> None:
    component = save_tiny()
    saved = load_file(component.path)

    network = load_network(component, CPU)

    assert isinstance(network, ResidualUNet)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, saved[key])
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert float(network.diam_mean) == network.config.diam_mean


def test_the_shipped_network_loads_and_answers() -> None:
    component = resolve_component("auto", models_dir=Path("."), cuda=False)

    network = load_network(component, CPU, torch.bfloat16)

    answer, style = network(torch.zeros(2, 3, 64, 48, dtype=torch.bfloat16))
    assert answer.shape == (2, 3, 64, 48)
    assert style.shape == (2, 256)
    assert network.dtype == torch.bfloat16


def _remove(state: dict[str, Tensor]) -> None:
    del state["head.weight"]


def _add(state: dict[str, Tensor]) -> None:
    state["tail.weight"] = torch.zeros(3)


def _reshape(state: dict[str, Tensor]) -> None:
    state["head.weight"] = state["head.weight"][:, :-1].contiguous()


def _spoil(state: dict[str, Tensor]) -> None:
    state["head.weight"][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_remove, r"lacks head\.weight"),
        (_add, r"unexpected tail\.weight"),
        (_reshape, r"wrong shapes at head\.weight \(3, 3, 1, 1\) instead of \(3, 4, 1, 1\)"),
        (_spoil, r"not finite at head\.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_to_the_letter_is_refused(
    change: Change, complaint: str, save_tiny: SaveTiny
) -> None:
    component = resaved(save_tiny(), change)

    with pytest.raises(CheckpointInvalid, match=complaint):
        load_network(component, CPU)


def test_a_truncated_checkpoint_is_refused(save_tiny: SaveTiny) -> None:
    component = save_tiny()
    path = Path(component.path)
    path.write_bytes(path.read_bytes()[:-100])
    component = dataclasses.replace(component, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    with pytest.raises(CheckpointInvalid, match="its end is missing"):
        load_network(component, CPU)


def test_a_truncated_torch_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cells.pt"
    torch.save({"W2": torch.zeros(1000), "encoder.pos_embed": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes()[:-500])

    with pytest.raises(CheckpointInvalid, match="damaged"):
        resolve_component(str(path), models_dir=tmp_path, cuda=False)


def test_weights_that_changed_since_they_were_resolved_are_refused(save_tiny: SaveTiny) -> None:
    component = save_tiny()
    resaved(component, _spoil)

    with pytest.raises(CheckpointInvalid, match="changed on disk"):
        load_network(component, CPU)


def test_weights_that_are_gone_are_not_found(save_tiny: SaveTiny) -> None:
    component = save_tiny()
    Path(component.path).unlink()

    with pytest.raises(ModelNotFound):
        load_network(component, CPU)


def test_an_unknown_architecture_is_refused(save_tiny: SaveTiny) -> None:
    component = dataclasses.replace(save_tiny(), architecture="u-net-9000")

    with pytest.raises(ModelError, match="cannot build"):
        load_network(component, CPU)


def test_a_network_that_does_not_say_how_it_is_built_is_refused(save_tiny: SaveTiny) -> None:
    component = save_tiny()
    save_file(load_file(component.path), component.path)
    component = dataclasses.replace(
        component, sha256=hashlib.sha256(Path(component.path).read_bytes()).hexdigest()
    )

    with pytest.raises(CheckpointInvalid, match=r"config|manifest"):
        load_network(component, CPU)


def test_many_wrong_keys_are_named_shortly() -> None:
    network = nn.Linear(2, 2)

    with pytest.raises(CheckpointInvalid, match="and 15 more"):
        load_strictly(
            network, {f"k{n}": torch.zeros(1) for n in range(20)} | network.state_dict(), source="x"
        )


def test_folding_for_inference_keeps_the_answer(save_tiny: SaveTiny) -> None:
    network = load_network(save_tiny(), CPU)
    image = torch.rand(1, 3, 32, 32)

    faster = optimise_for_inference(load_network(save_tiny(), CPU))

    torch.testing.assert_close(faster(image)[0], network(image)[0], atol=1e-4, rtol=1e-4)


def test_attention_without_the_matrix_is_the_same_attention() -> None:
    torch.manual_seed(0)
    block = Block(dim=32, num_heads=2, use_rel_pos=True, input_size=(16, 16)).eval()
    for offsets in (block.attn.rel_pos_h, block.attn.rel_pos_w):
        nn.init.normal_(offsets, std=0.5)
    tokens = torch.randn(2, 8, 8, 32)
    expected = block(tokens)
    keys = set(block.state_dict())

    speed_up_attention(nn.Sequential(block))

    torch.testing.assert_close(block(tokens), expected, atol=1e-5, rtol=1e-5)
    assert type(block.attn).__name__ == "DecomposedAttention"
    assert set(block.state_dict()) == keys


def test_cpsam_s_keys_are_known_without_its_memory() -> None:
    with torch.device("meta"):
        network = vit.CPSAM()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}

    assert architecture_of(shapes) == SAM_VITL
    assert sum(value.numel() for value in network.state_dict().values()) > 300e6


def test_a_cpsam_checkpoint_without_a_block_is_refused() -> None:
    with torch.device("meta"):
        network = vit.CPSAM()
        state = dict(network.state_dict())
    for key in [key for key in state if ".blocks.3." in key]:
        del state[key]

    with pytest.raises(CheckpointInvalid, match=r"encoder\.blocks\.3"):
        load_strictly(network, state, source="cpsam")


@pytest.mark.slow
def test_a_cpsam_checkpoint_is_loaded_and_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = vit.CPSAM().eval()
    path = tmp_path / "cpsam"
    torch.save(original.state_dict(), path)  # as CPSAM.save_model does
    tile = torch.rand(1, 3, 256, 256)

    component = resolve_component(str(path), models_dir=tmp_path, cuda=False)
    network = optimise_for_inference(load_network(component, CPU))

    with torch.inference_mode():
        torch.testing.assert_close(network(tile)[0], original(tile)[0], atol=1e-4, rtol=1e-3)


def test_cellpose_s_own_evaluation_runs_our_network(save_tiny: SaveTiny) -> None:
    model = StockModel(load_network(save_tiny(), CPU), device=CPU)
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)

    masks, flows, _ = model.eval(image, diameter=30)

    assert masks.shape == flows[2].shape == (70, 90)
