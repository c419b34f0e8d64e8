"""Adapters on a transformer: only they are learned and stored, and the engine loads them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cellpose import vit
from fine_tuning import CPU, StopsAfter, Watched, component_of, discs
from safetensors.torch import load_file, save_file
from segment_anything.modeling.image_encoder import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from ml_backend.domain import Component
from ml_backend.engines.catalogue import SAM_VITL, architecture_of
from ml_backend.engines.checkpoint_keys import checkpoint_shapes
from ml_backend.engines.lora import merge
from ml_backend.engines.networks import load_network
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.errors import CheckpointInvalid, TrainingError
from ml_backend.learning import TrainingParameters
from ml_backend.training.lora import add_adapters

pytestmark = pytest.mark.unhurried

PATCH = 8
LORA = TrainingParameters(
    n_epochs=2,
    n_samples=2,
    batch_size=1,
    validation_interval=1,
    learning_rate=0.01,
    lora_rank=2,
    weight_decay=0.0,
)


class TinyTransformer(nn.Module):
    """`cellpose.vit.CPSAM` with two narrow blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ImageEncoderViT(
            img_size=256,
            patch_size=PATCH,
            embed_dim=16,
            depth=2,
            num_heads=2,
            out_chans=16,
            use_rel_pos=True,
            rel_pos_zero_init=False,
        )
        self.out = nn.Conv2d(16, 3 * PATCH**2, kernel_size=1)
        eye = torch.eye(3 * PATCH**2).reshape(3 * PATCH**2, 3, PATCH, PATCH)
        self.W2 = nn.Parameter(eye, requires_grad=False)
        self.diam_mean = nn.Parameter(torch.tensor([30.0]), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, 3, 256, 256) -> flows and probability, style."""
        answer = self.out(self.encoder(x))
        return F.conv_transpose2d(answer, self.W2, stride=PATCH), x.mean(dim=(2, 3))


BUILDERS = {SAM_VITL: lambda _: TinyTransformer()}


@pytest.fixture
def base(tmp_path: Path) -> Component:
    torch.manual_seed(0)
    path = tmp_path / "base.safetensors"
    network = TinyTransformer()
    for name, weight in network.named_parameters():
        if weight.requires_grad and "rel_pos" not in name:
            nn.init.normal_(weight, std=0.05)
    save_file(network.state_dict(), str(path))
    return component_of(path, SAM_VITL)


def load(component: Component) -> nn.Module:
    return load_network(component, CPU, builders=BUILDERS)


def tune(folder: Path, base: Component, **fields: Any) -> tuple[Watched, Any]:
    watched = Watched(folder=folder, component=base, network=load(base))
    tuned = watched.run(
        [discs(1, diameter=30.0, edge=160)],
        [discs(2, diameter=30.0, edge=160)],
        parameters=replace(LORA, **fields),
        diameter=30.0,
    )
    return watched, tuned


def test_only_adapters_are_stored_and_the_engine_merges_them(
    tmp_path: Path, base: Component
) -> None:
    watched, tuned = tune(tmp_path / "session", base)
    stored = load_file(tuned.weights)
    assert {key.split("/")[0] for key in stored} == {"lora"}
    assert len(stored) == 2 * 2 * 2  # parts, layers, blocks
    served = component_of(tuned.weights, architecture_of(checkpoint_shapes(tuned.weights)))
    x = torch.rand(1, 3, 256, 256)
    assert watched.network is not None
    trained = watched.network.eval()(x)[0]
    assert served.architecture == SAM_VITL
    torch.testing.assert_close(load(served)(x)[0], trained, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(load(base)(x)[0], trained, atol=1e-4)


def test_the_checkpoint_of_adapters_holds_no_frozen_weights(
    tmp_path: Path, base: Component
) -> None:
    _, tuned = tune(tmp_path / "session", base)
    keys = [key for key in load_file(tuned.checkpoint) if key.startswith("network/")]
    assert all(key.endswith((".down", ".up")) for key in keys)


def test_adapters_go_on_where_they_were(tmp_path: Path, base: Component) -> None:
    _, whole = tune(tmp_path / "whole", base)
    watched = Watched(folder=tmp_path / "parts", component=base, network=load(base))
    images = [discs(1, diameter=30.0, edge=160)], [discs(2, diameter=30.0, edge=160)]
    stop = StopsAfter(watched, 1)
    assert watched.run(*images, parameters=LORA, diameter=30.0, should_stop=stop).stopped
    watched.network = load(base)
    resumed = watched.run(*images, parameters=LORA, diameter=30.0)
    wanted, got = load_file(whole.weights), load_file(resumed.weights)
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)


def test_all_weights_of_a_transformer_can_be_learned_too(tmp_path: Path, base: Component) -> None:
    watched, tuned = tune(tmp_path / "session", base, lora_rank=0, learning_rate=1e-4)
    assert len(watched.points) == 2
    before, after = load_file(base.path), load_file(tuned.weights)
    assert before.keys() == after.keys()
    assert torch.equal(before["W2"].half(), after["W2"])
    changed = [key for key in before if not torch.equal(before[key].half(), after[key])]
    assert any(".attn.rel_pos" in key for key in changed)
    load(component_of(tuned.weights, SAM_VITL))


def test_adapters_can_be_trained_on_top_of_adapters(tmp_path: Path, base: Component) -> None:
    _, first = tune(tmp_path / "first", base)
    _, second = tune(tmp_path / "second", component_of(first.weights, SAM_VITL), seed=1)
    x = torch.rand(1, 3, 256, 256)
    one, two = (load(component_of(tuned.weights, SAM_VITL))(x)[0] for tuned in (first, second))
    assert not torch.allclose(one, two)


def test_a_base_that_changed_is_noticed(tmp_path: Path, base: Component) -> None:
    _, tuned = tune(tmp_path / "session", base)
    state = load_file(base.path)
    save_file({key: value + 1 for key, value in state.items()}, base.path)
    with pytest.raises(CheckpointInvalid, match="has changed since"):
        load(component_of(tuned.weights, SAM_VITL))


def test_a_fresh_adapter_changes_nothing(base: Component) -> None:
    network = load(base)
    adapted = copy.deepcopy(network)
    layers = add_adapters(adapted, 2)
    assert sorted(layers)[0] == "encoder.blocks.0.attn.proj"
    assert {name for name, w in adapted.named_parameters() if w.requires_grad} == {
        f"{layer}.{part}" for layer in layers for part in ("down", "up")
    }
    x = torch.rand(1, 3, 256, 256)
    torch.testing.assert_close(adapted(x)[0], network(x)[0])


def test_a_network_without_attention_has_no_adapters() -> None:
    with pytest.raises(TrainingError, match="no attention"):
        add_adapters(ResidualUNet(), 2)


def test_merging_adds_the_product() -> None:
    state = {"a.weight": torch.zeros(3, 2), "b": torch.ones(1)}
    adapters = {"lora/x/a/down": torch.ones(1, 2), "lora/x/a/up": torch.tensor([[1.0], [2], [3]])}
    merged = merge(state, adapters)
    torch.testing.assert_close(merged["a.weight"], torch.tensor([[1.0, 1], [2, 2], [3, 3]]))
    assert merged["b"] is state["b"]
    assert not state["a.weight"].any()


@pytest.mark.parametrize(
    "adapters",
    [
        {"lora/x/a/down": torch.ones(1, 2)},
        {"lora/x/other/down": torch.ones(1, 2), "lora/x/other/up": torch.ones(3, 1)},
        {"lora/x/a/down": torch.ones(1, 5), "lora/x/a/up": torch.ones(3, 1)},
        {"lora/x/a/down": torch.ones(1, 2), "lora/x/a/up": torch.ones(3, 4)},
    ],
    ids=["alone", "no layer", "other inputs", "other rank"],
)
def test_adapters_that_do_not_fit_are_refused(adapters: Mapping[str, Tensor]) -> None:
    with pytest.raises(CheckpointInvalid):
        merge({"a.weight": torch.zeros(3, 2)}, adapters)


@pytest.mark.slow
def test_cellpose_sam_learns_with_a_few_megabytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "random.safetensors"
    network = vit.CPSAM()
    base = Component(
        name="random", architecture=SAM_VITL, sha256="0" * 64, path=str(path), licence="none"
    )
    watched = Watched(folder=tmp_path / "session", component=base, network=network)
    parameters = TrainingParameters(n_epochs=2, n_samples=1, lora_rank=4, validation_interval=2)
    tuned = watched.run(
        [discs(1, diameter=30.0, edge=160)], parameters=parameters, diameter=30.0, precision=None
    )
    assert tuned.steps == 2
    assert len(load_file(tuned.weights)) == 24 * 2 * 2
    assert tuned.weights.stat().st_size < 4e6
    assert tuned.checkpoint.stat().st_size < 12e6


def test_adapters_are_stored_merged_where_their_base_will_not_stay(
    tmp_path: Path, base: Component
) -> None:
    watched = Watched(folder=tmp_path / "session", component=base, network=load(base))
    watched.keeps_whole = True
    images = [discs(1, diameter=30.0, edge=160)], [discs(2, diameter=30.0, edge=160)]
    tuned = watched.run(*images, parameters=LORA, diameter=30.0)

    served = component_of(tuned.weights, architecture_of(checkpoint_shapes(tuned.weights)))
    Path(base.path).unlink()

    assert watched.network is not None
    x = torch.rand(1, 3, 256, 256)
    torch.testing.assert_close(
        load(served)(x)[0], watched.network.eval()(x)[0], atol=1e-2, rtol=1e-2
    )
