"""Datasets in files become what a session learns from and is judged by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml_backend.datasets import DatasetSource, StoredDataset
from ml_backend.domain import FetchedFile, Image
from ml_backend.errors import TrainingError
from ml_backend.imaging.decode import decode_image
from ml_backend.learning import Side, TrainingParameters
from ml_backend.store.database import Database
from ml_backend.store.splits import Splits
from ml_backend.training.dataset import Dataset
from ml_backend.training.dataset_source import find_files
from ml_backend.training.folder_dataset import FolderDataset
from ml_backend.training.session_limits import SessionLimits
from tests.dataset_folders import LAYOUTS, assert_same_objects, folder_pairs, picture, write_png

ANY = TrainingParameters(min_train_masks=1)


def decode(file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None) -> Image:
    return decode_image(file, plane=plane, channels=channels, max_megapixels=1)


class Shelf:
    """Builds datasets on records of their own."""

    def __init__(self, folder: Path, empty_records: Path) -> None:
        records = shutil.copy(empty_records, folder / "records.sqlite3")
        self.root = folder / "data"
        self.root.mkdir()
        self.builder = FolderDataset(
            decode=decode, splits=Splits(Database(f"sqlite:///{records}")), max_pixels=10**6
        )

    def build(self, source: DatasetSource, parameters: TrainingParameters = ANY) -> Dataset:
        stored = StoredDataset(number=1, name="data", source=source, created_at=5.0)
        return self.builder.build(stored, find_files(self.root, source), parameters)


@pytest.fixture(scope="module")
def empty_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of empty records, which takes a moment to make."""
    path = tmp_path_factory.mktemp("records") / "empty.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def shelf(tmp_path: Path, empty_records: Path) -> Shelf:
    return Shelf(tmp_path, empty_records)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_gives_the_same_images_and_objects(
    shelf: Shelf, layout: Callable[[Path], DatasetSource]
) -> None:
    dataset = shelf.build(layout(shelf.root))

    truth = {pixels.tobytes(): labels for pixels, labels in map(picture, range(1, 6))}
    images = [*dataset.training, *dataset.hold_out]
    assert sorted(truth) == sorted(image.image.pixels.tobytes() for image in images)
    for image in images:
        assert_same_objects(image.labels, truth[image.image.pixels.tobytes()])
    assert len(dataset.hold_out) == 1
    assert dataset.test == []
    assert dataset.report["left_out"] == []
    assert dataset.diameter == pytest.approx(15, abs=2)


def test_the_split_is_kept_when_images_are_added(shelf: Shelf) -> None:
    first = shelf.build(folder_pairs(shelf.root, range(1, 6)))
    second = shelf.build(folder_pairs(shelf.root, range(1, 12)))

    before = {image.name for image in first.hold_out}
    after = {image.name for image in second.hold_out}
    assert before < after
    assert len(after) == 2
    assert {image.name for image in first.training} <= {image.name for image in second.training}


def with_test(source: DatasetSource) -> DatasetSource:
    return replace(source, test_images="test/images/", test_annotations="test/masks/")


def test_the_test_set_is_apart_from_both_sides(shelf: Shelf) -> None:
    source = with_test(folder_pairs(shelf.root))
    folder_pairs(shelf.root / "test", (20, 21))

    dataset = shelf.build(source)

    assert [image.name for image in dataset.test] == ["test/images/20.png", "test/images/21.png"]
    assert len(dataset.training) + len(dataset.hold_out) == 5
    assert dataset.report["images"] == {"training": 4, "hold_out": 1, "test": 2}
    assert [entry["image"] for entry in dataset.manifest["test"]] == [
        image.name for image in dataset.test
    ]
    numbers = [one.task_id for one in (*dataset.training, *dataset.hold_out, *dataset.test)]
    assert len(set(numbers)) == len(numbers)


def test_a_picture_of_the_test_set_is_not_learned_from_under_another_name(shelf: Shelf) -> None:
    source = with_test(folder_pairs(shelf.root))
    folder_pairs(shelf.root / "test", (20,))
    shutil.copy(shelf.root / "images" / "3.png", shelf.root / "test" / "images" / "x.png")
    shutil.copy(shelf.root / "masks" / "3.png", shelf.root / "test" / "masks" / "x.png")

    dataset = shelf.build(source)

    names = {image.name for image in (*dataset.training, *dataset.hold_out)}
    assert "images/3.png" not in names
    assert len(names) == 4
    assert any("images/3.png" in sentence for sentence in dataset.report["left_out"])


def spoil_image(root: Path) -> None:
    (root / "images" / "2.png").write_bytes(b"no picture")


def spoil_mask(root: Path) -> None:
    (root / "masks" / "2.png").write_bytes(b"no picture")


def colour_mask(root: Path) -> None:
    write_png(root / "masks" / "2.png", np.zeros((96, 96, 3), np.uint8))


def cut_mask(root: Path) -> None:
    write_png(root / "masks" / "2.png", picture(2)[1][:50].astype(np.uint16))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_image, "images/2.png is left out: The file is none of"),
        (spoil_mask, "because of masks/2.png: The file is none of"),
        (colour_mask, "because of masks/2.png: The file is a colour picture"),
        (cut_mask, "96 x 96 pixels, and its masks masks/2.png have 96 x 50"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_rest_is_learned_from(
    shelf: Shelf, spoil: Callable[[Path], None], said: str
) -> None:
    source = folder_pairs(shelf.root)
    spoil(shelf.root)

    dataset = shelf.build(source)

    assert len(dataset.training) + len(dataset.hold_out) == 4
    assert said in " ".join(dataset.report["left_out"])


def test_more_than_a_fifth_that_cannot_be_used_ends_it(shelf: Shelf) -> None:
    source = folder_pairs(shelf.root)
    spoil_image(shelf.root)
    (shelf.root / "masks" / "4.png").write_bytes(b"no picture")

    with pytest.raises(TrainingError, match="At least 2 of 5 images"):
        shelf.build(source)


def test_images_with_few_objects_are_left_out_and_empty_ones_are_not(shelf: Shelf) -> None:
    source = folder_pairs(shelf.root)
    for seed, most in ((1, 3), (2, 3), (3, 0), (4, 0)):
        labels = picture(seed)[1]
        write_png(
            shelf.root / "masks" / f"{seed}.png",
            np.where(labels > most, 0, labels).astype(np.uint16),
        )

    dataset = shelf.build(source, replace(ANY, min_train_masks=5))

    assert all(image.objects == 0 or image.objects >= 5 for image in dataset.training)
    left = [sentence for sentence in dataset.report["left_out"] if "3 objects" in sentence]
    assert all("min_train_masks" in sentence for sentence in left)
    assert len(left) + len(dataset.training) + len(dataset.hold_out) == 5


def test_binary_masks_are_told_of(shelf: Shelf) -> None:
    source = folder_pairs(shelf.root)
    write_png(shelf.root / "masks" / "1.png", (picture(1)[1] > 0).astype(np.uint8) * 255)

    dataset = shelf.build(source)

    (remark,) = dataset.report["remarks"]
    assert remark.startswith("images/1.png: ")
    assert "one value for all objects" in remark


def test_a_session_takes_no_more_than_its_share_and_the_same_each_time(shelf: Shelf) -> None:
    source = folder_pairs(shelf.root, range(1, 13))
    shelf.builder = replace(shelf.builder, limits=SessionLimits(training=5, hold_out=2))

    first, second = shelf.build(source), shelf.build(source)

    assert len(first.training) <= 5
    assert 1 <= len(first.hold_out) <= 2
    assert [one.name for one in first.training] == [one.name for one in second.training]
    assert "a session takes no more" in " ".join(first.report["remarks"])


def test_a_wish_to_stop_is_heard_at_each_image(shelf: Shelf) -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    shelf.builder = replace(shelf.builder, on_image=stop)

    with pytest.raises(Stopped):
        shelf.build(folder_pairs(shelf.root))


def test_sides_are_kept_for_the_dataset_and_no_other(shelf: Shelf) -> None:
    source = folder_pairs(shelf.root)
    shelf.build(source)

    kept = shelf.builder.splits
    stored = StoredDataset(number=1, name="data", source=source, created_at=5.0)
    assert sorted(kept.sides(stored.key).values()) == [Side.HOLD_OUT, *[Side.TRAINING] * 4]
    assert kept.sides(replace(stored, number=2).key) == {}
