"""Files of a dataset, none of which lies outside of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ml_backend.datasets import DatasetSource
from ml_backend.errors import TrainingError
from ml_backend.training import dataset_files
from ml_backend.training.dataset_files import DatasetFiles
from ml_backend.training.dataset_source import find_files, find_unpacked_files
from ml_backend.training.metadata_pairs import pairs_of_metadata


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a dataset's folder, with something private beside it."""
    folder = tmp_path / "data"
    for name in ("images/a.tif", "masks/a.tif", "images/deep/b.tif", "images/.hidden.tif"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "c.tif").write_bytes(b"x")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.tif").write_bytes(b"s")
    return folder


def test_files_are_listed_without_hidden_ones(root: Path) -> None:
    assert DatasetFiles(root).names() == ["images/a.tif", "images/deep/b.tif", "masks/a.tif"]
    assert DatasetFiles(root).names(["masks", "nowhere"]) == ["masks/a.tif"]
    assert DatasetFiles(root).names(["masks/a.tif"]) == ["masks/a.tif"]


def test_links_that_lead_out_are_no_files_of_it(root: Path, tmp_path: Path) -> None:
    (root / "images" / "out.tif").symlink_to(tmp_path / "private" / "secret.tif")
    (root / "images" / "folder").symlink_to(tmp_path / "private")
    (root / "images" / "circle.tif").symlink_to("circle.tif")
    (root / "images" / "gone.tif").symlink_to("gone-too.tif")
    (root / "images" / "inside.tif").symlink_to(root / "images" / "a.tif")
    files = DatasetFiles(root)

    assert [name for name in files.names() if name.startswith("images/")] == [
        "images/a.tif",
        "images/deep/b.tif",
        "images/inside.tif",
    ]
    for name in ("images/out.tif", "images/folder/secret.tif", "../private/secret.tif"):
        with pytest.raises(TrainingError, match="no file"):
            files.path(name)


@pytest.mark.parametrize("name", ["/etc/passwd", "images", "images/\0", "images/none.tif", ""])
def test_what_is_no_file_of_it_has_no_path(root: Path, name: str) -> None:
    with pytest.raises(TrainingError, match="no file"):
        DatasetFiles(root).path(name)


def test_a_pipe_is_no_file(root: Path) -> None:
    os.mkfifo(root / "images" / "pipe.tif")

    assert "images/pipe.tif" not in DatasetFiles(root).names()


@pytest.mark.parametrize("name", ["nowhere", "data/images/a.tif", "~nobody-of-that-name/x"])
def test_a_root_that_is_no_folder_is_refused(root: Path, name: str) -> None:
    with pytest.raises(TrainingError, match="no folder"):
        DatasetFiles(root.parent / name if not name.startswith("~") else Path(name))


def test_too_many_files_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_files, "MOST_FILES", 2)

    with pytest.raises(TrainingError, match="more than 2 files"):
        DatasetFiles(root).names()


# metadata


def describe(root: Path, content: Any, name: str = "one.json") -> None:
    (root / "meta").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "meta" / name).write_text(text)


def described(root: Path) -> tuple[list[tuple[str, str]], str]:
    files = DatasetFiles(root)
    found = pairs_of_metadata(files, files.names(["meta"]), "meta/")
    return [(pair.image, pair.mask) for pair in found.pairs], " ".join(found.remarks)


PAIR = ("images/a.tif", "masks/a.tif")


@pytest.mark.parametrize(
    "content",
    [
        {"image_path": PAIR[0], "mask_path": PAIR[1]},
        {"image_path": f"./{PAIR[0]}", "mask_path": PAIR[1], "stain": "dapi"},
        [{"image_path": PAIR[0], "mask_path": PAIR[1]}],
        {"image_path": [PAIR[0]], "mask_path": [PAIR[1]]},
    ],
)
def test_metadata_names_images_and_masks(root: Path, content: Any) -> None:
    describe(root, content)

    assert described(root) == ([PAIR], "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ([1], "names no image_path"),
        ({"image_path": "images/a.tif"}, "names no image_path and mask_path"),
        ({"image_path": ["images/a.tif"], "mask_path": []}, "1 images and 0 masks"),
        ({"image_path": 3, "mask_path": "x"}, "texts"),
        ({"image_path": "images/none.tif", "mask_path": "masks/a.tif"}, "images/none.tif"),
        ({"image_path": "../private/secret.tif", "mask_path": "masks/a.tif"}, "no such file"),
        ({"image_path": "/etc/passwd", "mask_path": "masks/a.tif"}, "no such file"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_metadata_that_names_nothing_is_a_sentence(root: Path, content: Any, said: str) -> None:
    describe(root, {"image_path": PAIR[0], "mask_path": PAIR[1]}, "good.json")
    describe(root, content)

    pairs, remarks = described(root)

    assert pairs == [PAIR]
    assert said in remarks


def test_metadata_without_any_pair_is_refused(root: Path) -> None:
    describe(root, {})

    with pytest.raises(TrainingError, match="None of the 1 JSON files"):
        described(root)


def test_an_image_with_two_masks_keeps_the_first(root: Path) -> None:
    describe(root, [{"image_path": PAIR[0], "mask_path": PAIR[1]}] * 2, "a.json")
    describe(root, {"image_path": PAIR[0], "mask_path": "images/deep/b.tif"}, "b.json")

    pairs, remarks = described(root)

    assert pairs == [PAIR]
    assert "images/deep/b.tif" in remarks


# sources


def test_an_image_of_the_test_set_is_not_learned_from(root: Path) -> None:
    for name in ("images/b.tif", "masks/b.tif"):
        (root / name).write_bytes(b"x")
    source = DatasetSource(
        root="ignored",
        train_images="images/",
        train_annotations="masks/",
        test_images="images/bee*",
        test_annotations="masks/bee*",
    )
    (root / "images" / "bee.tif").write_bytes(b"x")
    (root / "masks" / "bee.tif").write_bytes(b"x")

    found = find_files(root, source)

    assert [pair.image for pair in found.test.pairs] == ["images/bee.tif"]
    assert [pair.image for pair in found.training.pairs] == ["images/a.tif", "images/b.tif"]
    assert "1 image is in the test set" in " ".join(found.training.remarks)


def test_a_dataset_that_is_all_test_is_refused(root: Path) -> None:
    source = DatasetSource(
        root="ignored",
        train_images="images/",
        train_annotations="masks/",
        test_images="images/",
        test_annotations="masks/",
    )

    with pytest.raises(TrainingError, match="leave some for training"):
        find_files(root, source)


def test_what_lies_elsewhere_in_the_root_is_not_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (root / f"{number}.txt").write_bytes(b"x")
    monkeypatch.setattr(dataset_files, "MOST_FILES", 3)
    source = DatasetSource(root="x", train_images="images/", train_annotations="masks/")

    assert len(find_files(root, source).training.pairs) == 1


@pytest.mark.parametrize("prefix", ["", "data/"])
def test_the_one_folder_of_an_archive_may_be_named_or_not(root: Path, prefix: str) -> None:
    unpacked = root.parent
    for path in (unpacked / "private").iterdir():
        path.unlink()
    (unpacked / "private").rmdir()
    source = DatasetSource(
        root="x", train_images=f"{prefix}images/", train_annotations=f"{prefix}masks/"
    )

    assert len(find_unpacked_files(unpacked, source).training.pairs) == 1
