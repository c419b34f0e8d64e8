"""Points of a training's curves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Point:
    """One epoch of a training; None where nothing was measured in it."""

    epoch: int = 0
    loss: float | None = None  # on the training images
    lr: float | None = None  # learning rate
    val_loss: float | None = None  # on the hold-out
    ap50: float | None = None  # average precision at IoU 0.5 on the hold-out, 0..1
    ap75: float | None = None
    ap90: float | None = None
    pixel_precision: float | None = None  # on the test set, 0..1, and so the next three
    pixel_recall: float | None = None
    pixel_f1: float | None = None
    pixel_iou: float | None = None
    step: int | None = None  # of the optimiser, at the epoch's end
    seconds: float | None = None  # since the training began
