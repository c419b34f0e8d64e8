"""What the configuration of the built-in architecture may say."""

from __future__ import annotations

import pytest

from ml_backend.engines.residual_unet import ResidualUNetConfig

FIELDS = {
    "channels": [4, 8],
    "encoder_blocks": [0, 1],
    "decoder_blocks": [1],
    "diam_mean": 22.0,
}


def test_a_configuration_comes_back_from_its_manifest() -> None:
    config = ResidualUNetConfig(diam_mean=30.0)

    assert ResidualUNetConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "wrong",
    [{"diam_mean": "22"}, {"channels": [4, True]}, {"channels": [4]}, {"unknown": 1}],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|must|needs"):
        ResidualUNetConfig.from_json({**FIELDS, **wrong})
