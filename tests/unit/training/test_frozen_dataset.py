"""What a session learns from is settled once."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from ml_backend.domain import Component, Image
from ml_backend.errors import TrainingError
from ml_backend.learning import Side
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset import Dataset
from ml_backend.training.frozen_dataset import INDEX, FrozenDataset, Keep

START = Component(
    name="nuclei-1", architecture="residual-unet", sha256="ab" * 32, path="/w", licence="CC0-1.0"
)


def image(task: int, side: Side, *, is_partial: bool = False) -> AnnotatedImage:
    noise = np.random.default_rng(task)
    return AnnotatedImage(
        task_id=task,
        annotation_ids=(10 * task, 10 * task + 1),
        group=f"group {task}",
        side=side,
        image=Image(
            pixels=noise.integers(0, 60_000, (9, 7, 2), dtype=np.uint16),
            sha256=f"{task:064x}",
            notes=("A plane was chosen.",),
        ),
        labels=noise.integers(0, 3, (9, 7), dtype=np.int32),
        finished=noise.random((9, 7)) > 0.5 if is_partial else None,
        weight=0.5,
        untouched=task == 2,
        accepted_from=frozenset({"cd" * 32}),
        notes=("A stroke was empty.",),
    )


def keep_nothing(image: AnnotatedImage) -> AnnotatedImage:
    return image


def dataset(keep: Keep = keep_nothing) -> Dataset:
    return Dataset(
        training=[
            keep(image(1, Side.TRAINING)),
            keep(image(2, Side.TRAINING, is_partial=True)),
        ],
        hold_out=[keep(image(3, Side.HOLD_OUT))],
        manifest={"task_hashes": {"1": "a"}, "images": []},
        report={"left_out": ["Task 4: gone."]},
        diameter=12.5,
        diameter_spread=1.25,
    )


def never(_: Keep) -> Dataset:
    raise AssertionError("the dataset was built a second time")


def assert_same(one: AnnotatedImage, other: AnnotatedImage) -> None:
    np.testing.assert_array_equal(one.image.pixels, other.image.pixels)
    assert one.image.pixels.dtype == other.image.pixels.dtype
    assert one.labels.dtype == other.labels.dtype
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.finished is None) == (other.finished is None)
    if one.finished is not None and other.finished is not None:
        np.testing.assert_array_equal(one.finished, other.finished)
    arrays = ("image", "labels", "finished")
    for name in (field.name for field in fields(AnnotatedImage) if field.name not in arrays):
        assert getattr(one, name) == getattr(other, name)
    assert one.image.sha256 == other.image.sha256
    assert one.image.notes == other.image.notes


def test_the_next_try_learns_from_the_very_same(tmp_path: Path) -> None:
    first = FrozenDataset(tmp_path / "dataset").load_or(dataset, START)
    again = FrozenDataset(tmp_path / "dataset").load_or(never, START)

    for name in (field.name for field in fields(Dataset)):
        if name in ("training", "hold_out", "test"):
            pairs = zip(getattr(first, name), getattr(again, name), strict=True)
            for one, other in pairs:
                assert_same(one, other)
        else:
            assert getattr(first, name) == getattr(again, name)


def test_the_network_it_starts_from_is_settled_as_well(tmp_path: Path) -> None:
    frozen = FrozenDataset(tmp_path / "dataset")
    assert frozen.start() is None

    frozen.load_or(dataset, START)

    assert frozen.start() == START


def test_what_cannot_be_built_is_not_settled(tmp_path: Path) -> None:
    frozen = FrozenDataset(tmp_path / "dataset")
    with pytest.raises(AssertionError):
        frozen.load_or(never, START)

    assert len(frozen.load_or(dataset, START).training) == 2


def test_a_disk_that_is_full_leaves_nothing_half(tmp_path: Path) -> None:
    frozen = FrozenDataset(tmp_path / "dataset")
    broken = replace(dataset(), report={"number": float("nan")})  # fails after the arrays

    with pytest.raises(ValueError, match="JSON"):
        frozen.load_or(lambda _: broken, START)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", '{"format": 0}'])
def test_an_index_that_cannot_be_read_is_made_again(tmp_path: Path, text: str) -> None:
    frozen = FrozenDataset(tmp_path / "dataset")
    frozen.load_or(dataset, START)
    (tmp_path / "dataset" / INDEX).write_text(text)

    assert len(frozen.load_or(dataset, START).training) == 2
    assert frozen.start() == START


def test_what_teaches_nothing_is_told_and_not_settled(tmp_path: Path) -> None:
    frozen = FrozenDataset(tmp_path / "dataset")
    told: list[Dataset] = []
    with pytest.raises(TrainingError, match="outlined object"):
        frozen.load_or(lambda _: replace(dataset(), training=[]), START, tell=told.append)

    assert [one.report for one in told] == [dataset().report]
    assert frozen.start() is None
    assert len(frozen.load_or(dataset, START, tell=told.append).training) == 2  # resumed
    assert len(told) == 2
    frozen.load_or(never, START, tell=told.append)
    assert len(told) == 2


def test_an_image_that_is_put_away_takes_no_memory_and_no_open_file(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept: list[AnnotatedImage] = []

    def build(keep: Keep) -> Dataset:
        built = dataset(keep)
        kept.extend([*built.training, *built.hold_out])
        return built

    frozen = FrozenDataset(tmp_path / "dataset")
    first = frozen.load_or(build, START)
    again = frozen.load_or(never, START)

    for one in (first, again):
        for mapped in (*kept, *one.training, *one.hold_out):
            assert_same(mapped, image(mapped.task_id, mapped.side, is_partial=mapped.task_id == 2))
            arrays = (mapped.image.pixels, mapped.labels, mapped.finished)
            assert not any(array.flags.owndata for array in arrays if array is not None)
            assert not any(array.flags.writeable for array in arrays if array is not None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_image_that_is_left_out_after_all_leaves_no_file(tmp_path: Path) -> None:
    def build(keep: Keep) -> Dataset:
        keep(image(9, Side.TRAINING))
        return dataset(keep)

    FrozenDataset(tmp_path / "dataset").load_or(build, START)

    names = {path.name for path in (tmp_path / "dataset").iterdir()}
    assert {name.partition("-")[0] for name in names} == {"1", "2", "3", INDEX}
    assert len(names) == 8


def copy_file(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def test_a_test_set_and_the_names_of_files_are_settled_as_well(tmp_path: Path) -> None:
    named = replace(image(4, Side.HOLD_OUT), name="test/a.tif")
    frozen = FrozenDataset(tmp_path / "dataset")
    frozen.load_or(lambda _: replace(dataset(), test=[named]), START)

    again = frozen.load_or(never, START)

    assert_same(again.test[0], named)
    assert [one.title for one in (*again.hold_out, *again.test)] == ["Task 3", "test/a.tif"]


def test_another_session_can_take_it_over_and_start_from_another_network(tmp_path: Path) -> None:
    frozen = FrozenDataset(tmp_path / "one" / "dataset")
    settled = frozen.load_or(dataset, START)
    start = replace(START, name="other")

    frozen.copy_to(tmp_path / "two" / "dataset", start, copy=copy_file)
    shutil.rmtree(tmp_path / "one")

    taken = FrozenDataset(tmp_path / "two" / "dataset")
    assert taken.start() == start
    for one, other in zip(taken.load_or(never, start).training, dataset().training, strict=True):
        assert_same(one, other)
    assert taken.load_or(never, start).manifest == settled.manifest


def test_what_is_not_there_or_vanishes_meanwhile_is_not_taken_over(tmp_path: Path) -> None:
    frozen = FrozenDataset(tmp_path / "one" / "dataset")
    with pytest.raises(FileNotFoundError):
        frozen.copy_to(tmp_path / "two" / "dataset", START, copy=copy_file)
    frozen.load_or(dataset, START)

    def vanish(source: Path, target: Path) -> None:
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        copy_file(source, target)

    with pytest.raises(FileNotFoundError):
        frozen.copy_to(tmp_path / "two" / "dataset", START, copy=vanish)
    assert list((tmp_path / "two").iterdir()) == []
