"""The built-in network: a small residual U-Net that predicts Cellpose's flows and cell probability.

It answers like Cellpose's own networks, so `cellpose.dynamics`, `cellpose.train._loss_fn_seg` and
`cellpose.models.CellposeModel.eval` work on it unchanged.

Input, `x: (N, 3, Y, X)` float: gray images repeated to three channels, every channel mapped so that
its 1st percentile over the whole image is 0 and its 99th is 1 (`cellpose.transforms.normalize99`;
a constant channel becomes 0), then resized so that the median object is about `config.diam_mean`
pixels wide. Y and X are multiples of `config.stride`; pad with zeros.

Output, `y: (N, 3, Y, X)`: 5 x Y-flow, 5 x X-flow, logit of the cell probability.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

INPUT_CHANNELS = 3
OUTPUT_CHANNELS = 3
# `cellpose.core.run_net` copies styles into arrays of this width; narrower ones are filled with 0.
STYLE_WIDTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualUNetConfig:
    """Architecture: one entry per resolution, the finest first, each half as fine as the last."""

    channels: tuple[int, ...] = (32, 64, 96, 128, 192)
    encoder_blocks: tuple[int, ...] = (0, 1, 2, 2, 1)
    # The coarsest resolution has no decoder.
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    # Median object diameter the weights were trained for, in pixels (Cellpose's definition).
    diam_mean: float = 22.0

    def __post_init__(self) -> None:
        levels = len(self.channels)
        if levels < 2 or min(self.channels) < 1 or self.diam_mean <= 0:
            raise ValueError("a residual U-Net needs two resolutions, channels and a diameter")
        if self.channels[-1] > STYLE_WIDTH:
            raise ValueError(f"the coarsest resolution has at most {STYLE_WIDTH} channels")
        if len(self.encoder_blocks) != levels or len(self.decoder_blocks) != levels - 1:
            raise ValueError(
                "encoder_blocks needs one entry per resolution, decoder_blocks one less"
            )

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this, in pixels."""
        return int(2 ** (len(self.channels) - 1))

    def to_json(self) -> dict[str, object]:
        """Plain lists and numbers, for a manifest."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> ResidualUNetConfig:
        """The inverse of `to_json`; unknown, missing or mistyped fields raise ValueError."""
        names = {"channels", "encoder_blocks", "decoder_blocks", "diam_mean"}
        if set(fields) != names:
            raise ValueError(f"expected the fields {sorted(names)}, got {sorted(fields)}")
        diam_mean = fields["diam_mean"]
        if isinstance(diam_mean, bool) or not isinstance(diam_mean, int | float):
            raise ValueError("diam_mean must be a number")
        return cls(
            channels=_int_tuple(fields["channels"]),
            encoder_blocks=_int_tuple(fields["encoder_blocks"]),
            decoder_blocks=_int_tuple(fields["decoder_blocks"]),
            diam_mean=float(diam_mean),
        )


def _int_tuple(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of integers")
    if any(isinstance(v, bool) or not isinstance(v, int) for v in value):
        raise ValueError("expected a list of integers")
    return tuple(value)


class ConvNorm(nn.Module):
    """Convolution, then batch normalisation; `fold_batch_norm` makes them one convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, Y, X) -> (N, outputs, Y / stride, X / stride)."""
        out: Tensor = self.norm(self.conv(x))
        return out


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, channels, Y, X), same shape out."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class Decoder(nn.Module):
    """Coarse features, doubled in size, added to the encoder's features of one resolution."""

    def __init__(self, coarse: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.project = ConvNorm(coarse, channels, kernel=1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """coarse: (N, coarse, Y / 2, X / 2), skip: (N, channels, Y, X) -> (N, channels, Y, X)."""
        grown = F.interpolate(self.project(coarse), scale_factor=2.0, mode="nearest")
        out: Tensor = self.blocks(F.relu(grown + skip))
        return out


class ResidualUNet(nn.Module):
    """Image -> Cellpose flows, cell probability and a style vector."""

    def __init__(self, config: ResidualUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or ResidualUNetConfig()
        widths = self.config.channels
        self.stem = ConvNorm(INPUT_CHANNELS, widths[0])
        self.downs = nn.ModuleList(
            ConvNorm(fine, coarse, stride=2) for fine, coarse in pairwise(widths)
        )
        self.encoders = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
            for width, blocks in zip(widths, self.config.encoder_blocks, strict=True)
        )
        self.decoders = nn.ModuleList(
            Decoder(coarse, fine, blocks)
            for fine, coarse, blocks in zip(
                widths, widths[1:], self.config.decoder_blocks, strict=False
            )
        )
        self.head = nn.Conv2d(widths[0], OUTPUT_CHANNELS, 1)
        # Read by Cellpose. Not parameters here: they are part of the architecture, not learned.
        self.diam_mean = torch.tensor([self.config.diam_mean])
        self.diam_labels = torch.tensor([self.config.diam_mean])
        self.backbone = "residual_unet"
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, ResidualBlock) and isinstance(module.second.norm, nn.BatchNorm2d):
                nn.init.zeros_(module.second.norm.weight)
        nn.init.normal_(self.head.weight, std=0.01)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; Cellpose casts its input to it."""
        return self.head.weight.dtype

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, 3, Y, X) -> y: (N, 3, Y, X), see above; style: (N, STYLE_WIDTH), norm 1."""
        features = F.relu(self.stem(x))
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            features = encoder(features)
            skips.append(features)
            features = F.relu(down(features))
        features = self.encoders[-1](features)
        style = F.normalize(features.float().mean(dim=(2, 3)), dim=1)
        style = F.pad(style, (0, STYLE_WIDTH - style.shape[1]))
        for decoder, skip in zip(reversed(self.decoders), reversed(skips), strict=True):
            features = decoder(features, skip)
        out: Tensor = self.head(features)
        return out, style.to(out.dtype)


def fold_batch_norm(net: ResidualUNet) -> ResidualUNet:
    """A copy of `net` for inference, in which each normalisation is part of its convolution.

    The original is left as it is. The copy's state dict has other keys: save the original.
    """
    folded = copy.deepcopy(net).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return folded
