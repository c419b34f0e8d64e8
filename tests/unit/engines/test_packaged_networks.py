"""The file that builds a network elsewhere answers as the network does here."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellpose import vit
from torch import nn

from ml_backend.engines.catalogue import DINO_VITL, RESIDUAL_UNET, SAM_VITL
from ml_backend.engines.normalisation import NormalisedImage, resize, to_three_channels
from ml_backend.engines.packaged.architecture import (
    OWN_PACKAGE,
    PackagedArchitecture,
    packaged_architecture,
)
from ml_backend.engines.packaged.cellpose_transformer import PackagedCellposeTransformer
from ml_backend.engines.packaged.frames import resample, scaled, three_channels
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.errors import ModelError
from tests.small_cpsam import SmallCpsam

SMALL = ResidualUNetConfig(
    channels=(4, 8, 12), encoder_blocks=(0, 1, 1), decoder_blocks=(1, 1), diam_mean=22.0
)


def packed(network: nn.Module, architecture: str, scale: float = 1.0) -> PackagedArchitecture:
    return packaged_architecture("mine", network, architecture, scale=scale)


def small_unet() -> ResidualUNet:
    torch.manual_seed(0)
    network = ResidualUNet(SMALL)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def small_cpsam() -> SmallCpsam:
    torch.manual_seed(0)
    return SmallCpsam().eval()


def build_from_file(architecture: PackagedArchitecture, state: Any) -> nn.Module:
    names: dict[str, Any] = {"__name__": "architecture"}
    sys.modules["architecture"] = type(sys)("architecture")  # dataclasses look for it
    try:
        exec(compile(architecture.source, "architecture.py", "exec"), names)  # noqa: S102
        network: nn.Module = names[architecture.callable](**architecture.arguments)
    finally:
        del sys.modules["architecture"]
    network.load_state_dict(state, strict=True)
    return network.eval()


@pytest.mark.parametrize("shape", [(64, 80), (33, 47)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_file_s_residual_unet_answers_as_ours_does(
    channels: int, shape: tuple[int, int]
) -> None:
    network = small_unet()
    x = torch.rand(2, channels, *shape)

    answer = build_from_file(packed(network, RESIDUAL_UNET), network.state_dict())(x)

    for image, got in zip(x.numpy(), answer.detach().numpy(), strict=True):
        whole = to_three_channels(
            NormalisedImage(channels=image, blank=(False,) * channels), repeat_gray=True
        )
        stride = SMALL.stride
        padding = ((0, 0), *((stride, stride + -length % stride) for length in shape))
        own = network(torch.from_numpy(np.pad(whole, padding))[None])[0][0].detach().numpy()
        expected = own[:, stride : stride + shape[0], stride : stride + shape[1]]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_file_s_transformer_answers_as_cellpose_s_does() -> None:
    network = small_cpsam()
    x = torch.rand(2, 3, 256, 256)

    answer = build_from_file(packed(network, SAM_VITL), network.state_dict())(x)

    np.testing.assert_allclose(answer.detach(), network(x)[0].detach(), atol=1e-3)


def test_missing_channels_are_black_for_cellpose_s_transformer() -> None:
    network = small_cpsam()
    packaged = packed(network, SAM_VITL).build(network.state_dict())
    x = torch.rand(1, 2, 256, 256)

    expected = network(torch.cat([x, torch.zeros(1, 1, 256, 256)], dim=1))[0]

    np.testing.assert_allclose(packaged(x), expected.detach(), atol=1e-3)


def test_the_transformer_s_tile_is_resized_to_what_it_knows() -> None:
    network = small_cpsam()
    packaged = packed(network, SAM_VITL, scale=0.8).build(network.state_dict())
    image = np.random.default_rng(0).random((3, 320, 320), dtype=np.float32)

    answer = packaged(torch.from_numpy(image)[None])[0].numpy()

    small = torch.from_numpy(resize(image, 256, 256, average=False))[None]
    expected = resize(network(small)[0][0].detach().numpy(), 320, 320, average=False)
    np.testing.assert_allclose(answer, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "average"),
    [((101, 155), True), ((131, 200), True), ((131, 200), False), ((411, 620), False)],
)
def test_images_are_resized_as_here(size: tuple[int, int], average: bool) -> None:
    image = np.random.default_rng(0).random((2, 203, 311), dtype=np.float32)

    resized = resample(torch.from_numpy(image)[None], *size, average=average)[0].numpy()

    np.testing.assert_allclose(resized, resize(image, *size, average=average), atol=1e-4)


def test_sizes_are_rounded_as_here() -> None:
    for length in range(1, 400):
        for scale in (0.1, 0.55, 22 / 37, 1.7):
            assert int(scaled(length, scale)) == max(1, int(length * scale))


def test_of_two_channels_the_third_is_their_mean() -> None:
    x = torch.rand(1, 2, 8, 8)
    filled = three_channels(x, repeat_gray=True)
    torch.testing.assert_close(filled[:, 2], x.mean(dim=1))


@pytest.mark.unhurried
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_a_trace_holds_for_other_sizes(scale: float) -> None:
    network = small_unet()
    packaged = packed(network, RESIDUAL_UNET, scale).build(network.state_dict())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the trace takes for constant is constant
        traced = torch.jit.trace(packaged, torch.rand(1, 1, 64, 96))

    for shape in ((2, 1, 80, 64), (1, 1, 71, 130)):
        x = torch.rand(*shape)
        torch.testing.assert_close(traced(x), packaged(x))


def test_the_real_transformer_has_the_file_s_parameters() -> None:
    with torch.device("meta"):
        network = vit.CPSAM()
    architecture = packed(network, SAM_VITL)
    with torch.device("meta"):
        packaged = PackagedCellposeTransformer(**architecture.arguments)

    def shapes(module: nn.Module) -> dict[str, torch.Size]:
        return {key: tensor.shape for key, tensor in module.state_dict().items()}

    assert shapes(packaged) == shapes(network)
    assert architecture.tile == 256
    assert architecture.parameters > 300_000_000


@pytest.mark.parametrize("made", [small_unet, small_cpsam])
def test_the_file_names_nothing_of_ours(made: Any) -> None:
    network = made()
    is_unet = isinstance(network, ResidualUNet)
    architecture = packed(network, RESIDUAL_UNET if is_unet else SAM_VITL)

    assert OWN_PACKAGE not in architecture.source
    imported = {
        (node.module or "").partition(".")[0]
        if isinstance(node, ast.ImportFrom)
        else node.names[0].name.partition(".")[0]
        for node in ast.walk(ast.parse(architecture.source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - sys.stdlib_module_names == {"torch"}


@pytest.mark.unhurried
def test_the_file_runs_where_our_package_is_not(tmp_path: Path) -> None:
    network = small_unet()
    architecture = packed(network, RESIDUAL_UNET)
    (tmp_path / "architecture.py").write_text(architecture.source)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    program = (
        "import sys, torch\n"
        f"sys.modules[{OWN_PACKAGE!r}] = None  # importing it fails\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import architecture\n"
        f"net = architecture.{architecture.callable}(**{dict(architecture.arguments)!r})\n"
        f"net.load_state_dict(torch.load({str(tmp_path / 'weights.pt')!r}, weights_only=True))\n"
        "print(tuple(net.eval()(torch.zeros(1, 1, 40, 50)).shape))\n"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "(1, 3, 40, 50)", done.stderr


def test_what_needs_a_package_that_nobody_can_install_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'mine'.*Cellpose checkpoint"):
        packed(nn.Linear(1, 1), DINO_VITL)
