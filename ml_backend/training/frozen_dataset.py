"""A session's dataset on disk, so that every try of the session learns from the very same.

People go on annotating while a session trains. What it learns from is settled when it begins:
an index as JSON and a file for each array, in a folder that is whole or not there. The arrays are
mapped into memory, also while the dataset is built: it may be larger than the memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import structlog

from ml_backend.domain import Component, Image
from ml_backend.learning import Side
from ml_backend.model_files.folders import remove_folder, sweep, written_aside
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset import Dataset
from ml_backend.training.mapped_array import map_array
from ml_backend.training.session_facts import require_something_to_learn

INDEX: Final = "dataset.json"
FORMAT: Final = 2  # a folder of another one is made again

Keep = Callable[[AnnotatedImage], AnnotatedImage]
"""Puts an image's arrays into files and returns it with them mapped."""

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

    def load_or(
        self,
        build: Callable[[Keep], Dataset],
        start: Component,
        *,
        tell: Callable[[Dataset], None] = lambda _: None,
    ) -> Dataset:
        """Return the dataset as it was settled, or settle it now if there is something to learn.

        Args:
            build: makes the dataset; it may put images away as soon as it has them.
            start: the network that the session starts from.
            tell: is told of a new dataset, also of one from which nothing can be learned.

        Raises:
            TrainingError: there is nothing to learn; a later try looks again.
            OSError: the disk is full or cannot be written.
            Exception: whatever `build` or `tell` raises.
        """
        index = self._index()
        if index is not None:
            return self._load(index)
        remove_folder(self._folder)
        sweep(self._folder.parent)
        with written_aside(self._folder) as aside:
            dataset = build(partial(_keep, folder=aside))
            tell(dataset)
            require_something_to_learn(dataset)
            index = _write(dataset, start, aside)
        return self._load(index)

    def copy_to(
        self, folder: Path, start: Component, *, copy: Callable[[Path, Path], None]
    ) -> None:
        """Settle the same dataset in `folder`, for a session that starts from another network.

        Raises:
            FileNotFoundError: it is not settled, or was removed meanwhile.
            FileExistsError: `folder` is there already; it is left as it is.
            OSError: the disk is full or cannot be written.
        """
        index = self._index()
        if index is None:
            raise FileNotFoundError(self._folder)
        images = (*index["images"], *index.get("test", ()))
        with written_aside(folder) as aside:
            for name in (name for facts in images for name in facts["files"]):
                copy(self._folder / name, aside / name)
            text = json.dumps({**index, "start": asdict(start)}, ensure_ascii=False)
            (aside / INDEX).write_text(text, encoding="utf-8")

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
            test=[_read_image(facts, self._folder) for facts in index.get("test", ())],
        )


def _write(dataset: Dataset, start: Component, folder: Path) -> dict[str, Any]:
    """Write what is not in `folder` yet, remove what was left out after all; return the index."""
    images = [*dataset.training, *dataset.hold_out, *dataset.test]
    index = {
        "format": FORMAT,
        "start": asdict(start),
        "manifest": dataset.manifest,
        "report": dataset.report,
        "diameter": dataset.diameter,
        "diameter_spread": dataset.diameter_spread,
        "images": [_facts(image, folder) for image in (*dataset.training, *dataset.hold_out)],
        "test": [_facts(image, folder) for image in dataset.test],
    }
    text = json.dumps(index, ensure_ascii=False, allow_nan=False)
    used = {name for image in images for name in _arrays(image)}
    for path in folder.iterdir():
        if path.name not in used:
            path.unlink()
    (folder / INDEX).write_text(text, encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


def _keep(image: AnnotatedImage, *, folder: Path) -> AnnotatedImage:
    files = {name: folder / name for name in _arrays(image)}
    for name, array in _arrays(image).items():
        np.save(files[name], array, allow_pickle=False)
    return _with_arrays(image, [map_array(path) for path in files.values()])


def _arrays(image: AnnotatedImage) -> dict[str, npt.NDArray[Any]]:
    """Return an image's arrays by the names of their files: pixels, labels, finished."""
    name = f"{image.task_id}-{image.annotation_ids[0]}"
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{name}-pixels.npy": image.image.pixels,
        f"{name}-labels.npy": image.labels,
    }
    return arrays if image.finished is None else {**arrays, f"{name}-finished.npy": image.finished}


def _with_arrays(image: AnnotatedImage, arrays: list[npt.NDArray[Any]]) -> AnnotatedImage:
    pixels, labels, *finished = arrays
    return replace(
        image,
        image=replace(image.image, pixels=pixels),
        labels=labels,
        finished=finished[0] if finished else None,
    )


def _facts(image: AnnotatedImage, folder: Path) -> dict[str, Any]:
    if not all((folder / name).is_file() for name in _arrays(image)):
        _keep(image, folder=folder)
    return {
        "files": list(_arrays(image)),
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
        "name": image.name,
    }


def _read_image(facts: Mapping[str, Any], folder: Path) -> AnnotatedImage:
    pixels, labels, *finished = (map_array(folder / name) for name in facts["files"])
    return AnnotatedImage(
        task_id=facts["task_id"],
        annotation_ids=tuple(facts["annotation_ids"]),
        group=facts["group"],
        side=Side(facts["side"]),
        image=Image(pixels=pixels, sha256=facts["sha256"], notes=tuple(facts["image_notes"])),
        labels=labels,
        finished=finished[0] if finished else None,
        weight=facts["weight"],
        untouched=facts["untouched"],
        accepted_from=frozenset(facts["accepted_from"]),
        notes=tuple(facts["notes"]),
        name=facts.get("name"),
    )
