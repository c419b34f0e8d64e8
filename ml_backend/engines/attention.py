"""Cellpose-SAM's attention without the attention matrix.

SAM adds to the logit of query i and key j a term for their vertical and one for their horizontal
distance. `segment_anything` builds the whole matrix (1024 x 1024 per head and tile), adds both
terms and takes the softmax: about six passes over 32 MB per tile and block in 16 bits. Both terms
are products of something of the query with a one-hot vector of the key's row or column,

    q_i k_j + h_i[row(j)] + w_i[column(j)]  =  [q_i, h_i, w_i] . [k_j, onehot(row), onehot(column)]

so with 64 + 32 + 32 = 128 features per head any fused attention kernel does it in one pass.
"""

from __future__ import annotations

import torch
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional as F


class DecomposedAttention(nn.Module):
    """Drop-in for SAM's `Attention`: same parameters under the same names, same answer."""

    def __init__(self, original: Attention) -> None:
        super().__init__()
        self.num_heads = int(original.num_heads)
        self.scale = float(original.scale)
        self.qkv = original.qkv
        self.proj = original.proj
        self.rel_pos_h = original.rel_pos_h
        self.rel_pos_w = original.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, Y, X, features), same shape out."""
        count, height, width, features = x.shape
        tokens = height * width
        qkv = self.qkv(x).reshape(count, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # (N, heads, tokens, features per head)
        grid = query.reshape(count, self.num_heads, height, width, -1)
        offset_y = get_rel_pos(height, height, self.rel_pos_h)
        offset_x = get_rel_pos(width, width, self.rel_pos_w)
        by_row = torch.einsum("nhyxc,ykc->nhyxk", grid, offset_y)
        by_column = torch.einsum("nhyxc,xkc->nhyxk", grid, offset_x)
        wide_query = torch.cat(
            [
                query * self.scale,
                by_row.reshape(count, self.num_heads, tokens, height),
                by_column.reshape(count, self.num_heads, tokens, width),
            ],
            dim=-1,
        )
        place = torch.cat(
            [
                torch.eye(height, dtype=x.dtype, device=x.device).repeat_interleave(width, dim=0),
                torch.eye(width, dtype=x.dtype, device=x.device).repeat(height, 1),
            ],
            dim=-1,
        )
        wide_key = torch.cat([key, place.expand(count, self.num_heads, -1, -1)], dim=-1)
        # fused kernels want one head size for all three
        wide_value = F.pad(value, (0, wide_key.shape[-1] - value.shape[-1]))
        answer = F.scaled_dot_product_attention(wide_query, wide_key, wide_value, scale=1.0)
        answer = answer[..., : value.shape[-1]].transpose(1, 2)
        out: Tensor = self.proj(answer.reshape(count, height, width, features))
        return out


def speed_up_attention(network: nn.Module) -> None:
    """Replace SAM's attention in every block of `network`; other networks are left alone."""
    for block in list(network.modules()):
        attention = getattr(block, "attn", None)
        if isinstance(attention, Attention) and attention.use_rel_pos:
            block.attn = DecomposedAttention(attention)
