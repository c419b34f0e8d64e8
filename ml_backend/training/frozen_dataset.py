"""A session's dataset on disk, so that every try of the session learns from the very same.

People go on annotating while a session trains. What it learns from is settled when it begins:
an index as JSON and a file of arrays for each image, in a folder that is whole or not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from ml_backend.domain import Component, Image
from ml_backend.learning import Side
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset import Dataset
from ml_backend.training.folders import remove_folder, sweep, written_aside

INDEX = "dataset.json"
FORMAT = 1  # a folder of another one is made again

log = structlog.get_logger(__name__)


class FrozenDataset:
    """The dataset of one session, and the network that it starts from."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder, which need not be there yet."""
        self._folder = folder

    def start(self) -> Component | None:
        """Return the network that the session starts from, None while it is not settled."""
        index = self._index()
        return None if index is None else Component(**index["start"])

    def load_or(self, build: Callable[[], Dataset], start: Component) -> Dataset:
        """Return the dataset as it was settled, or settle it now.

        Raises:
            OSError: the disk is full or cannot be written.
            Exception: whatever `build` raises.
        """
        index = self._index()
        if index is not None:
            return self._load(index)
        remove_folder(self._folder)
        sweep(self._folder.parent)
        dataset = build()
        with written_aside(self._folder) as aside:
            _write(dataset, start, aside)
        return dataset

    def _index(self) -> dict[str, Any] | None:
        try:
            index = json.loads((self._folder / INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("dataset is settled anew", folder=str(self._folder), reason=str(error))
            return None
        return index if isinstance(index, dict) and index.get("format") == FORMAT else None

    def _load(self, index: Mapping[str, Any]) -> Dataset:
        images = [_read_image(facts, self._folder) for facts in index["images"]]
        return Dataset(
            training=[image for image in images if image.side is Side.TRAINING],
            hold_out=[image for image in images if image.side is Side.HOLD_OUT],
            manifest=index["manifest"],
            report=index["report"],
            diameter=index["diameter"],
            diameter_spread=index["diameter_spread"],
        )


def _write(dataset: Dataset, start: Component, folder: Path) -> None:
    images = [*dataset.training, *dataset.hold_out]
    index = {
        "format": FORMAT,
        "start": asdict(start),
        "manifest": dataset.manifest,
        "report": dataset.report,
        "diameter": dataset.diameter,
        "diameter_spread": dataset.diameter_spread,
        "images": [
            _write_image(image, folder / f"{number}.npz") for number, image in enumerate(images)
        ],
    }
    text = json.dumps(index, ensure_ascii=False, allow_nan=False)
    (folder / INDEX).write_text(text, encoding="utf-8")


def _write_image(image: AnnotatedImage, path: Path) -> dict[str, Any]:
    if image.finished is None:
        np.savez(path, pixels=image.image.pixels, labels=image.labels)
    else:
        np.savez(path, pixels=image.image.pixels, labels=image.labels, finished=image.finished)
    return {
        "file": path.name,
        "task_id": image.task_id,
        "annotation_ids": list(image.annotation_ids),
        "group": image.group,
        "side": image.side.value,
        "sha256": image.image.sha256,
        "image_notes": list(image.image.notes),
        "weight": image.weight,
        "untouched": image.untouched,
        "accepted_from": sorted(image.accepted_from),
        "notes": list(image.notes),
    }


def _read_image(facts: Mapping[str, Any], folder: Path) -> AnnotatedImage:
    with np.load(folder / facts["file"], allow_pickle=False) as arrays:
        pixels, labels = arrays["pixels"], arrays["labels"]
        finished = arrays.get("finished")
    return AnnotatedImage(
        task_id=facts["task_id"],
        annotation_ids=tuple(facts["annotation_ids"]),
        group=facts["group"],
        side=Side(facts["side"]),
        image=Image(pixels=pixels, sha256=facts["sha256"], notes=tuple(facts["image_notes"])),
        labels=labels,
        finished=finished,
        weight=facts["weight"],
        untouched=facts["untouched"],
        accepted_from=frozenset(facts["accepted_from"]),
        notes=tuple(facts["notes"]),
    )
