"""The built-in network for other programs: any size, one to three channels, one answer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ml_backend.engines.packaged.frames import resample, scaled, three_channels
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig


class PackagedResidualUNet(ResidualUNet):
    """The residual U-Net around which everything is done that its own program does with arrays.

    Input: (N, C, Y, X) float, C from 1 to 3, every channel of every image mapped so that its 1st
    percentile is 0 and its 99th is 1. Output: (N, 3, Y, X), 5 x Y-flow, 5 x X-flow and the logit
    of the cell probability.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        encoder_blocks: Sequence[int],
        decoder_blocks: Sequence[int],
        diam_mean: float,
        scale: float = 1.0,
    ) -> None:
        """Build the network.

        Args:
            channels: of each resolution, the finest first.
            encoder_blocks: residual blocks of each resolution.
            decoder_blocks: the same, of all but the coarsest.
            diam_mean: diameter of the objects it was trained on, in network pixels.
            scale: network pixels per image pixel.
        """
        super().__init__(
            ResidualUNetConfig(
                channels=tuple(channels),
                encoder_blocks=tuple(encoder_blocks),
                decoder_blocks=tuple(decoder_blocks),
                diam_mean=diam_mean,
            )
        )
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # one answer, no style
        """x: (N, C, Y, X) -> (N, 3, Y, X)."""
        height, width = x.shape[2], x.shape[3]
        x = three_channels(x, repeat_gray=True)
        if self.scale != 1.0:
            size = scaled(height, self.scale), scaled(width, self.scale)
            x = resample(x, *size, average=self.scale < 1.0)
        rows, columns = x.shape[2], x.shape[3]
        # a frame of zeros, by which the network knows that an object is cut by the image's border
        frame = self.config.stride
        framed = F.pad(x, (frame, frame + -columns % frame, frame, frame + -rows % frame))
        answer, _ = super().forward(framed)
        answer = answer[:, :, frame : frame + rows, frame : frame + columns]
        if self.scale != 1.0:
            answer = resample(answer, height, width, average=False)
        return answer
