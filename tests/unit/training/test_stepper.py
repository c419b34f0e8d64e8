"""One step: memory that runs out, number formats, what is learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cellpose import train
from fine_tuning import CPU, TINY, OutOfMemoryAbove
from torch import nn

from ml_backend.engines.catalogue import RESIDUAL_UNET
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.errors import OutOfMemory
from ml_backend.learning import TrainingParameters
from ml_backend.recipes import recipe_for
from ml_backend.training.crops import Batch
from ml_backend.training.losses import weighted_loss
from ml_backend.training.stepper import Stepper

pytestmark = pytest.mark.unhurried

RECIPE = recipe_for(RESIDUAL_UNET, TrainingParameters(batch_size=8), images=1)


def batch(count: int = 8, step: int = 0) -> Batch:
    random = torch.Generator().manual_seed(step)
    targets = torch.rand(count, 4, 32, 32, generator=random)
    targets[:, 2] = (targets[:, 2] > 0.5).float()
    return Batch(step=step, images=torch.rand(count, 3, 32, 32, generator=random), targets=targets)


def stepper(network: nn.Module, piece: int = 8, precision: str = "float32") -> Stepper:
    return Stepper(network, RECIPE, device=CPU, precision=precision, piece=piece)


def flat_network() -> nn.Module:
    """A network without normalisation over the batch, whose pieces add up to the whole."""
    torch.manual_seed(0)
    return Answering(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))


class Answering(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.inner(x), None


def test_the_loss_is_cellposes_where_all_pixels_weigh_the_same() -> None:
    answer, targets = torch.randn(2, 3, 16, 16), batch(2).targets[:, :, :16, :16].clone()
    targets[:, 3] = 1.0
    cellpose_order = torch.cat([targets[:, 2:3], targets[:, :2]], dim=1)
    wanted = train._loss_fn_seg(cellpose_order, answer, CPU)
    torch.testing.assert_close(weighted_loss(answer, targets) / (2 * 16 * 16), wanted)


def test_pixels_of_weight_zero_count_nothing() -> None:
    answer, targets = torch.randn(1, 3, 16, 16), batch(1).targets[:, :, :16, :16].clone()
    targets[:, 3, :, 8:] = 0.0
    other = answer.clone()
    other[..., 8:] = 100.0
    assert weighted_loss(answer, targets) == weighted_loss(other, targets)


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    network = OutOfMemoryAbove(ResidualUNet(TINY), most=2)
    ours = stepper(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loss = ours.step(batch(), 0.01)
    assert np.isfinite(loss)
    assert network.tried == [8, 4, 2, 2, 2, 2]
    assert ours.piece == 2
    ours.step(batch(step=1), 0.01)
    assert network.tried[6:] == [2, 2, 2, 2]
    assert any(not torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_batch_in_pieces_is_learned_from_as_a_whole() -> None:
    whole, pieces = flat_network(), flat_network()
    losses = [
        stepper(whole, piece=8).step(batch(), 0.01),
        stepper(pieces, piece=3).step(batch(), 0.01),
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_processor_without_memory_counts_as_out_of_memory() -> None:
    class Poor(OutOfMemoryAbove):
        def forward(self, x: torch.Tensor) -> object:
            if len(x) > self.most:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return self.inner(x)

    ours = stepper(Poor(ResidualUNet(TINY), most=4))
    ours.step(batch(), 0.01)
    assert ours.piece == 4


def test_other_errors_of_a_network_are_not_taken_for_memory() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 2))

        def forward(self, x: torch.Tensor) -> object:
            raise RuntimeError("sizes of tensors must match")

    with pytest.raises(RuntimeError, match="must match"):
        stepper(Broken()).step(batch(), 0.01)


def test_a_single_crop_that_does_not_fit_is_said() -> None:
    network = OutOfMemoryAbove(ResidualUNet(TINY), most=0)
    with pytest.raises(OutOfMemory, match="A single crop"):
        stepper(network).step(batch(), 0.01)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_much_the_same_as_float32(precision: str) -> None:
    losses = {}
    for name in ("float32", precision):
        ours = stepper(flat_network(), precision=name)
        losses[name] = [ours.step(batch(), 0.01) for _ in range(10)]
    # float16 skips its first steps, until its scale fits
    assert losses[precision][-1] == pytest.approx(losses["float32"][-1], rel=0.15)
    assert losses[precision][-1] < losses[precision][0]


def test_a_gradient_that_is_not_finite_is_skipped() -> None:
    network = flat_network()
    ours = stepper(network)
    before = [weight.clone() for weight in network.parameters()]
    bad = batch()
    bad.images[0, 0, 0, 0] = float("inf")
    ours.step(bad, 0.01)
    assert ours.skipped == 1
    for weight, old in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old)
    ours.step(batch(step=1), 0.01)
    assert ours.skipped == 0


def test_biases_and_norms_do_not_decay() -> None:
    ours = stepper(ResidualUNet(TINY))
    decays = {group["weight_decay"]: group["params"] for group in ours.optimiser.param_groups}
    assert all(weight.ndim <= 1 for weight in decays[0.0])
    assert all(weight.ndim > 1 for weight in decays[RECIPE.weight_decay])
    assert replace(RECIPE, weight_decay=0.1).weight_decay == 0.1
