"""Where a dataset says that its images and masks lie, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ml_backend.datasets import DatasetSource
from ml_backend.errors import TrainingError
from ml_backend.training.dataset_archive import move_up
from ml_backend.training.dataset_files import DatasetFiles
from ml_backend.training.dataset_pairs import Pairs, find_pairs
from ml_backend.training.metadata_pairs import pairs_of_metadata


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """The images of a dataset and their masks, for training and for a test."""

    files: DatasetFiles
    training: Pairs
    test: Pairs  # none where the source names no test set


def find_files(root: Path, source: DatasetSource) -> FoundFiles:
    """Return the images and masks of a dataset in a folder.

    Args:
        root: The folder that `source` is about.
        source: Says what lies where in it.

    Raises:
        TrainingError: there are none; the sentence says what was looked for.
    """
    files = DatasetFiles(root)
    names = files.names(_folders_of(source))
    where = str(files.root)
    test = Pairs(pairs=())
    if source.test_images is not None or source.test_annotations is not None:
        test = find_pairs(
            names, images=source.test_images, annotations=source.test_annotations, where=where
        )
    if source.metadata_dir is not None:
        training = pairs_of_metadata(files, names, source.metadata_dir)
    else:
        training = find_pairs(
            names, images=source.train_images, annotations=source.train_annotations, where=where
        )
    return FoundFiles(files=files, training=_without(training, test, where), test=test)


def find_unpacked_files(folder: Path, source: DatasetSource) -> FoundFiles:
    """Return the images and masks of an archive that was unpacked into `folder`.

    Many archives hold one folder that holds everything; what `source` names may be meant from
    within it.

    Raises:
        TrainingError: there are none; the sentence says what was looked for.
    """
    inner = move_up(folder)
    if inner == folder:
        return find_files(folder, source)
    try:
        return find_files(inner, source)
    except TrainingError:
        return find_files(folder, source)


def _folders_of(source: DatasetSource) -> list[str]:
    """Return the folders that the files of a dataset can lie in: the root may hold much else."""
    named = [
        source.train_images,
        source.train_annotations,
        source.test_images,
        source.test_annotations,
        source.metadata_dir,
    ]
    folders = [_folder_of(one) for one in named if one is not None]
    if source.train_images is None and source.metadata_dir is None:
        folders.append("")
    return folders


def _folder_of(named: str) -> str:
    before, star, _ = named.partition("*")
    folder = before.rpartition("/")[0] if star else named
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    return "" if ".." in parts else "/".join(parts)


def _without(training: Pairs, test: Pairs, where: str) -> Pairs:
    """Return the pairs for training that are none of the test's."""
    tested = {pair.image for pair in test.pairs}
    both = [pair.image for pair in training.pairs if pair.image in tested]
    if not both:
        return training
    left = tuple(pair for pair in training.pairs if pair.image not in tested)
    if not left:
        raise TrainingError(
            f"All {len(both)} images of {where} are in the test set; leave some for training."
        )
    remark = f"{_counted(both)} in the test set, and not learned from."
    return replace(training, pairs=left, remarks=(*training.remarks, remark))


def _counted(names: Sequence[str]) -> str:
    return "1 image is" if len(names) == 1 else f"{len(names)} images are"
