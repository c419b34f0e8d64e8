"""What a training can be told."""

from __future__ import annotations

from typing import TypedDict


class TrainingOptions(TypedDict, total=False):
    """Options of a training; None and what is left out are as the network's defaults have it."""

    n_samples: int | None  # crops per epoch
    n_epochs: int | None
    learning_rate: float | None
    weight_decay: float | None
    min_train_masks: int | None  # an image with fewer instances is left out, unless it is empty
    validation_interval: int | None  # epochs between two scores on the hold-out
    enable_clahe: bool | None  # whether the contrast of images is equalised first
    rescale: bool | None  # whether images are resized to the network's diameter
    batch_size: int | None  # crops per step
    crop: int | None  # edge of a crop, pixels
    max_minutes: float | None
    patience: int | None  # scores without a rise before it stops early
    lora_rank: int | None  # of adapters on a transformer; 0 = all weights are trained
    seed: int | None
    from_active: bool | None  # of a project: start from what it serves, not from the base
    label: str | None  # a word of your own, to find it by


class DatasetLayout(TypedDict, total=False):
    """Where the images of a dataset and their masks lie in its folder or archive.

    Images and annotations are folders (ending in "/"; an image and its mask have the same name) or
    patterns with one "*". Without any of it the folder is read as Cellpose's: `x.tif` beside
    `x_masks.tif` or `x_seg.npy`.
    """

    train_images: str | None
    train_annotations: str | None
    test_images: str | None
    test_annotations: str | None
    metadata_dir: str | None  # instead: JSON files, each naming an image_path and a mask_path
