"""The built-in architecture: what enters it, and what its configuration may say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig, compress_range

TINY = ResidualUNetConfig(channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(1,))
OF_THE_FIRST_NETWORKS = {
    "channels": [4, 8],
    "encoder_blocks": [0, 1],
    "decoder_blocks": [1],
    "diam_mean": 22.0,
}


@given(st.floats(0, 1, width=32))
def test_values_between_the_percentiles_enter_as_they_are(value: float) -> None:
    assert compress_range(torch.tensor([value])).item() == value


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=20))
def test_compressed_values_keep_their_order(values: list[float]) -> None:
    ordered = torch.tensor(sorted(values))

    compressed = compress_range(ordered)

    assert (compressed.diff() >= 0).all()


def test_values_outside_enter_by_their_logarithm() -> None:
    e = torch.e

    compressed = compress_range(torch.tensor([e, 1 - e, 1 + (e**3 - 1)]))

    assert torch.allclose(compressed, torch.tensor([1 + torch.tensor(e).log(), -1.0, 4.0]))


def test_a_bright_spot_changes_less_where_the_range_is_compressed() -> None:
    torch.manual_seed(0)
    plain = ResidualUNet(TINY).eval()
    compressing = ResidualUNet(
        ResidualUNetConfig.from_json({**TINY.to_json(), "compress_range": True})
    )
    compressing.load_state_dict(plain.state_dict())
    compressing.eval()
    x = torch.rand(1, 3, 16, 16)
    bright = x.clone()
    bright[..., 8, 8] = 60.0

    with torch.no_grad():
        stem, compressed_stem = plain.stem(bright), plain.stem(compress_range(bright))

    assert compressed_stem.abs().max() < stem.abs().max() / 5
    with torch.no_grad():
        assert torch.equal(compressing(x)[0], plain(x)[0])
        assert not torch.equal(compressing(bright)[0], plain(bright)[0])


def test_a_configuration_comes_back_from_its_manifest() -> None:
    config = ResidualUNetConfig(compress_range=True)

    assert ResidualUNetConfig.from_json(config.to_json()) == config


def test_manifests_of_the_first_networks_say_nothing_of_the_range() -> None:
    assert not ResidualUNetConfig.from_json(OF_THE_FIRST_NETWORKS).compress_range


@pytest.mark.parametrize(
    "wrong",
    [
        {"compress_range": 1},
        {"diam_mean": "22"},
        {"channels": [4, True]},
        {"unknown": 1},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|must"):
        ResidualUNetConfig.from_json({**OF_THE_FIRST_NETWORKS, **wrong})
