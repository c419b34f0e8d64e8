"""Cellpose-SAM for other programs: a vision transformer that needs nothing but torch.

The parameters have the names and the meaning that they have in Cellpose 4 (`cellpose.vit.CPSAM`
around the image encoder of `segment_anything`), so its checkpoints load strictly. Every block
attends to the whole tile; positions count by learned terms for the vertical and the horizontal
distance of two tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ml_backend.engines.packaged.frames import resample, three_channels

EPSILON = 1e-6  # of every normalisation


class ChannelNorm(nn.Module):
    """Normalises the features of each place of (N, C, Y, X)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, Y, X), same shape out."""
        last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(last, (last.shape[-1],), self.weight, self.bias, EPSILON)
        return normed.permute(0, 3, 1, 2)


class RelativeAttention(nn.Module):
    """Attention over all tokens of a tile, biased by how far apart they are."""

    def __init__(self, dimension: int, heads: int, distances: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dimension, 3 * dimension)
        self.proj = nn.Linear(dimension, dimension)
        self.rel_pos_h = nn.Parameter(torch.zeros(distances, dimension // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(distances, dimension // heads))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, Y, X, features), same shape out."""
        count, height, width, features = x.shape
        tokens = height * width
        parts = self.qkv(x).reshape(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # (N, heads, tokens, features of a head)
        grid = query.reshape(count, self.heads, height, width, -1)
        down = torch.einsum("nhyxc,ykc->nhyxk", grid, _by_distance(self.rel_pos_h, height))
        across = torch.einsum("nhyxc,xkc->nhyxk", grid, _by_distance(self.rel_pos_w, width))
        bias = (down[..., :, None] + across[..., None, :]).reshape(count, self.heads, tokens, -1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, height, width, features))
        return out


def _by_distance(learned: Tensor, length: int) -> Tensor:
    """learned: (distances, C) -> (length, length, C), for each pair of places along an axis."""
    wanted = 2 * length - 1
    if len(learned) != wanted:
        stretched = F.interpolate(learned.T[None], size=wanted, mode="linear")
        learned = stretched[0].T
    places = torch.arange(length, device=learned.device)
    return learned[places[:, None] - places[None, :] + length - 1]


class Perceptron(nn.Module):
    """Two linear layers for each token by itself."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dimension, hidden)
        self.lin2 = nn.Linear(hidden, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., features), same shape out."""
        out: Tensor = self.lin2(F.gelu(self.lin1(x)))
        return out


class Block(nn.Module):
    """Attention and a perceptron, each added to its input."""

    def __init__(self, dimension: int, heads: int, hidden: int, distances: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dimension, eps=EPSILON)
        self.attn = RelativeAttention(dimension, heads, distances)
        self.norm2 = nn.LayerNorm(dimension, eps=EPSILON)
        self.mlp = Perceptron(dimension, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, Y, X, features), same shape out."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Patches(nn.Module):
    """Pixels to tokens."""

    def __init__(self, dimension: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dimension, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, Y, X) -> (N, Y / patch, X / patch, features)."""
        out: Tensor = self.proj(x)
        return out.permute(0, 2, 3, 1)


class Encoder(nn.Module):
    """Image tiles to features of their tokens."""

    def __init__(
        self,
        *,
        dimension: int,
        heads: int,
        hidden: int,
        distances: Sequence[int],
        grid: int,
        patch: int,
        features: int,
    ) -> None:
        super().__init__()
        self.patch_embed = Patches(dimension, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, dimension))
        self.blocks = nn.ModuleList(Block(dimension, heads, hidden, own) for own in distances)
        self.neck = nn.Sequential(
            nn.Conv2d(dimension, features, 1, bias=False),
            ChannelNorm(features),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            ChannelNorm(features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, tile, tile) -> (N, features, grid, grid)."""
        tokens = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        out: Tensor = self.neck(tokens.permute(0, 3, 1, 2))
        return out


class PackagedCellposeTransformer(nn.Module):
    """Cellpose's transformer, its answer alone.

    Input: (N, C, Y, X) float, C from 1 to 3, every channel of every image mapped so that its 1st
    percentile is 0 and its 99th is 1; it is resized to one tile. Output: (N, 3, Y, X), 5 x Y-flow,
    5 x X-flow and the logit of the cell probability.
    """

    def __init__(
        self,
        *,
        dimension: int,
        heads: int,
        hidden: int,
        distances: Sequence[int],
        grid: int,
        patch: int,
        features: int,
    ) -> None:
        """Build the network.

        Args:
            dimension: features of a token.
            heads: of the attention.
            hidden: width of the perceptrons.
            distances: how many distances each block has learned terms for.
            grid: tokens along a side of the tile.
            patch: pixels along a side of a token.
            features: of a token before the answer is read.
        """
        super().__init__()
        self.encoder = Encoder(
            dimension=dimension,
            heads=heads,
            hidden=hidden,
            distances=distances,
            grid=grid,
            patch=patch,
            features=features,
        )
        self.out = nn.Conv2d(features, 3 * patch**2, 1)
        self.W2 = nn.Parameter(torch.zeros(3 * patch**2, 3, patch, patch), requires_grad=False)
        # of Cellpose's training; part of its checkpoints
        self.diam_labels = nn.Parameter(torch.tensor([30.0]), requires_grad=False)
        self.diam_mean = nn.Parameter(torch.tensor([30.0]), requires_grad=False)
        self.tile, self.patch = grid * patch, patch

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, Y, X) -> (N, 3, Y, X)."""
        height, width = int(x.shape[2]), int(x.shape[3])
        x = three_channels(x, repeat_gray=False)
        if (height, width) != (self.tile, self.tile):
            x = resample(x, self.tile, self.tile, average=False)
        answer = F.conv_transpose2d(self.out(self.encoder(x)), self.W2, stride=self.patch)
        if (height, width) != (self.tile, self.tile):
            answer = resample(answer, height, width, average=False)
        return answer
