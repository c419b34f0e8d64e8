"""Datasets that lie in folders or archives, outside Label Studio: what sessions can learn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ml_backend.domain import ProjectKey

DATASET_ORIGIN = "dataset"
"""The `origin` of project keys that stand for a dataset and not for a Label Studio project."""

DATASET_CONTROLS = ("masks",)
"""The control that a session about a dataset is for: it has no label config."""


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Where the images of a dataset and their masks lie.

    `train_images` and `train_annotations` are folders (ending in "/"; an image and its mask have
    the same name) or patterns with one `*` that stands for the same text in both. Instead of them
    `metadata_dir` can hold JSON files, each naming an `image_path` and a `mask_path`. Without any
    of them the folder is read as Cellpose's: `x.tif` beside `x_masks.tif` or `x_seg.npy`.
    """

    root: str  # a folder on the trainer's machine, or the address of a zip or tar archive
    train_images: str | None = None
    train_annotations: str | None = None
    test_images: str | None = None
    test_annotations: str | None = None
    metadata_dir: str | None = None

    def canonical(self) -> dict[str, Any]:
        """Return a JSON-able mapping that is equal exactly when the sources are."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Return the hash that tells this source from others, hex."""
        text = json.dumps(self.canonical(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> DatasetSource:
        """Return what `canonical` gave."""
        return DatasetSource(**stored)


@dataclass(frozen=True, kw_only=True)
class StoredDataset:
    """A dataset that a session was asked for with."""

    number: int
    name: str  # unique, for people: the last part of its root, with a number where that is taken
    source: DatasetSource
    created_at: float  # seconds since the epoch

    @property
    def key(self) -> ProjectKey:
        """Return what stands for it where sessions, splits and versions name a project."""
        return ProjectKey(
            origin=DATASET_ORIGIN, project_id=self.number, created_at=int(self.created_at)
        )


def is_dataset(key: ProjectKey) -> bool:
    """Return whether a key stands for a dataset and not for a Label Studio project."""
    return key.origin == DATASET_ORIGIN
