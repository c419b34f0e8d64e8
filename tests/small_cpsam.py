"""Cellpose's own transformer, narrow enough for a test of a second."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from cellpose import vit
from segment_anything.modeling.image_encoder import ImageEncoderViT
from torch import nn

from ml_backend.domain import Component
from ml_backend.engines.catalogue import CELLPOSE_LICENCE, SAM_VITL

PATCH = 8
TILE = 256
WIDTH = 16


class SmallCpsam(vit.CPSAM):  # type: ignore[misc]  # cellpose has no annotations
    """`cellpose.vit.CPSAM` with two narrow blocks; everything else is Cellpose's."""

    def __init__(self) -> None:
        vit.BaseModel.__init__(self)
        self.backbone, self.rdrop, self.ps, self.nout = "sam_vitl", 0.4, PATCH, 3
        self.encoder = ImageEncoderViT(
            img_size=1024,
            patch_size=16,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            out_chans=WIDTH,
            use_rel_pos=True,
            rel_pos_zero_init=False,
            window_size=14,
            global_attn_indexes=(1,),
        )
        self.encoder.patch_embed.proj = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        grid = TILE // PATCH
        self.encoder.pos_embed = nn.Parameter(0.1 * torch.randn(1, grid, grid, WIDTH))
        for block in self.encoder.blocks:
            block.window_size = 0
            # as trained: not zero, and of the length that SAM gave them
            nn.init.normal_(block.attn.rel_pos_h, std=0.3)
            nn.init.normal_(block.attn.rel_pos_w, std=0.3)
        self.out = nn.Conv2d(WIDTH, 3 * PATCH**2, 1)
        self.W2 = nn.Parameter(
            torch.eye(3 * PATCH**2).reshape(3 * PATCH**2, 3, PATCH, PATCH), requires_grad=False
        )


def save_small_cpsam(folder: Path, seed: int = 0) -> Component:
    """Save such a network with random weights as Cellpose does; return what it is."""
    torch.manual_seed(seed)
    path = folder / f"small-cpsam-{seed}"
    torch.save(SmallCpsam().state_dict(), path)
    return Component(
        name=path.name,
        architecture=SAM_VITL,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        licence=CELLPOSE_LICENCE,
    )
