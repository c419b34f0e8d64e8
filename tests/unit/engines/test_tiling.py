"""Tiles cover the image, and put together they are the network's answer to the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cellpose import core, transforms
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.engines.tiling import TilePlan, plan_convolution, plan_transformer
from tests.unit.engines.conftest import TINY, Doubling

sides = st.integers(1, 700)


def stitched(plan: TilePlan, image: np.ndarray) -> np.ndarray:
    canvas = np.zeros_like(image)
    for index in range(len(plan)):
        plan.stitch(canvas, index, plan.cut(image, index))
    return canvas


@given(height=sides, width=sides)
@settings(max_examples=25, deadline=None)
def test_tiles_of_a_convolution_put_together_are_the_image(height: int, width: int) -> None:
    image = np.random.default_rng(0).random((2, height, width), np.float32)
    plan = plan_convolution(height, width, stride=16, edge=256, halo=32)

    result = stitched(plan, image)

    np.testing.assert_allclose(result, image, atol=1e-6)
    assert max(plan.tile_yx) <= 256


@given(height=sides, width=sides)
@settings(max_examples=25, deadline=None)
def test_tiles_of_a_transformer_put_together_are_the_image(height: int, width: int) -> None:
    image = np.random.default_rng(0).random((1, height, width), np.float32)

    result = stitched(plan_transformer(height, width, tile=256), image)

    np.testing.assert_allclose(result, image, atol=1e-6)


@given(length=st.integers(1, 3000), halo=st.sampled_from([16, 32, 64]))
@settings(max_examples=50, deadline=None)
def test_tiles_start_where_the_stride_wants_them(length: int, halo: int) -> None:
    axis = plan_convolution(length, 40, stride=16, edge=512, halo=halo).rows

    assert axis.tile % 16 == 0
    assert all(start % 16 == 0 for start in axis.starts)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.tile >= axis.before + length + 16  # a frame at the end as well


@pytest.mark.parametrize("shape", [(97, 300), (256, 256), (241, 700), (600, 520)])
def test_transformer_tiles_and_taper_are_cellposes(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((3, *shape), np.float32)
    network = PositionNetwork()
    plan = plan_transformer(*shape, tile=256)

    ours = np.zeros((3, *shape), np.float32)
    for index in range(len(plan)):
        tile = torch.from_numpy(plan.cut(image, index)[None])
        plan.stitch(ours, index, network(tile)[0][0].numpy())
    stock, _ = core.run_net(network, image.transpose(1, 2, 0)[None], bsize=256)

    np.testing.assert_allclose(ours, stock[0].transpose(2, 0, 1), atol=2e-5)


class PositionNetwork(torch.nn.Module):
    """Answers what depends on where in the tile a pixel lies, so that blending shows."""

    device = torch.device("cpu")
    dtype = torch.float32

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ramp = torch.linspace(0, 1, x.shape[-1])
        return x + ramp + 2 * ramp[:, None], torch.zeros(len(x), 256)


def test_tiles_of_a_convolutional_network_leave_no_seam() -> None:
    torch.manual_seed(0)
    network = ResidualUNet(TINY).eval()
    image = np.random.default_rng(2).random((3, 300, 420), np.float32)
    whole = plan_convolution(300, 420, stride=2, edge=10_000, halo=32)
    tiled = plan_convolution(300, 420, stride=2, edge=160, halo=32)
    answers = []

    with torch.inference_mode():
        for plan in (whole, tiled):
            canvas = np.zeros_like(image)
            for index in range(len(plan)):
                tile = torch.from_numpy(plan.cut(image, index)[None].copy())
                plan.stitch(canvas, index, network(tile)[0][0].numpy())
            answers.append(canvas)

    assert len(whole) == 1
    assert len(tiled) > 6
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_padding_is_cellposes() -> None:
    top, bottom, _, _ = transforms.get_pad_yx(100, 300, min_size=(256, 256))

    rows = plan_transformer(100, 300, tile=256).rows

    assert rows.before == top
    assert rows.tile == 100 + top + bottom == 256


def test_a_tile_inside_the_image_is_not_copied() -> None:
    image = np.zeros((3, 900, 900), np.float32)
    plan = plan_convolution(900, 900, stride=16, edge=256, halo=32)
    middle = len(plan) // 2

    assert np.shares_memory(plan.cut(image, middle), image)
    assert Doubling()(torch.from_numpy(plan.cut(image, middle)[None]))[0].shape[-2:] == plan.tile_yx
