"""What callers may name as a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_backend.datasets import DatasetSource
from ml_backend.errors import BadRequest, NotFound
from ml_backend.service.dataset_sources import (
    LONGEST_ARTIFACT,
    LONGEST_PATTERN,
    AllowedPaths,
    DatasetSources,
    DatasetWish,
)
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder that callers may name things in."""
    (tmp_path / "data" / "nuclei").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[Datasets]:
    """Yield the empty table."""
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Datasets(database)
    database.close()


@pytest.fixture
def sources(datasets: Datasets, root: Path) -> DatasetSources:
    """Return what finds datasets."""
    return DatasetSources(datasets, AllowedPaths([root]))


def wish(artifact: object, **more: str | None) -> DatasetWish:
    """Return what a caller names."""
    return DatasetWish(artifact=str(artifact), **more)


class TestFolders:
    def test_a_folder_under_an_allowed_one_is_a_dataset(
        self, sources: DatasetSources, root: Path
    ) -> None:
        named = {"train_images": "images/*.tif", "train_annotations": "masks/*_label.tif"}
        assert sources.find(wish(root / "nuclei", **named)) == DatasetSource(
            root=str(root / "nuclei"), **named
        )
        assert sources.find(wish(root)).root == str(root)

    def test_however_it_is_written_it_is_the_same_source(
        self, sources: DatasetSources, root: Path
    ) -> None:
        (root / "link").symlink_to(root / "nuclei")
        for name in ("nuclei/", "./nuclei", "nuclei/../nuclei", "link"):
            assert sources.find(wish(f"{root}/{name}")).root == str(root / "nuclei")

    def test_what_lies_elsewhere_is_refused_whether_it_is_there_or_not(
        self, sources: DatasetSources, root: Path
    ) -> None:
        (root / "out").symlink_to("/etc")
        os.symlink(root / "loop", root / "loop")
        for path in ("/etc", "/no/such/folder", f"{root}/../..", f"{root}/out", f"{root}x"):
            with pytest.raises(BadRequest, match="outside of the folders") as refused:
                sources.find(wish(path))
            assert "DATA_ROOTS" in refused.value.message

    def test_one_that_is_not_there_is_told(self, sources: DatasetSources, root: Path) -> None:
        with pytest.raises(BadRequest, match="There is no dataset at"):
            sources.find(wish(root / "nuclie"))

    def test_what_only_the_trainer_has_is_left_to_it(self, datasets: Datasets) -> None:
        sources = DatasetSources(datasets, AllowedPaths([Path("/mounted/in/the/trainer")]))
        assert sources.find(wish("/mounted/in/the/trainer/a")).root == "/mounted/in/the/trainer/a"

    def test_without_allowed_folders_none_is_taken(self, datasets: Datasets, root: Path) -> None:
        with pytest.raises(BadRequest, match="set DATA_ROOTS"):
            DatasetSources(datasets, AllowedPaths([])).find(wish(root / "nuclei"))


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "https://host/nuclei.zip",
            "http://host:8000/a/b.tar.gz?x=1",
            "HTTPS://host/x",
            "http://[::1]/a.zip",
        ],
    )
    def test_an_address_is_taken_as_it_is(self, sources: DatasetSources, address: str) -> None:
        assert sources.find(wish(address)).root == address

    @pytest.mark.parametrize(
        "address",
        [
            "ftp://host/nuclei.zip",
            "file:///etc/passwd",
            "https://",
            "https:///nuclei.zip",
            "http://host:99999/x",
            "http://[::1/x",
            "://x",
        ],
    )
    def test_what_is_no_address_of_an_archive_is_refused(
        self, sources: DatasetSources, address: str
    ) -> None:
        with pytest.raises(BadRequest, match="no address of an archive"):
            sources.find(wish(address))

    def test_passwords_are_not_kept(self, sources: DatasetSources) -> None:
        with pytest.raises(BadRequest, match="kept and shown") as refused:
            sources.find(wish("https://ann:secret@host/nuclei.zip"))
        assert "secret" not in refused.value.message


class TestKnownNames:
    def test_a_known_dataset_is_found_by_its_name(
        self, sources: DatasetSources, datasets: Datasets, root: Path
    ) -> None:
        source = DatasetSource(root=str(root / "nuclei"), test_images="test/")
        datasets.register(source)
        assert sources.find(wish("nuclei")) == source
        other = sources.find(wish("nuclei", train_images="images/"))
        assert other == replace(source, train_images="images/")

    @pytest.mark.parametrize("name", ["cells", "nuclei/images", "..", "~", "C:\\data"])
    def test_an_unknown_one_is_told_with_those_that_are_known(
        self, sources: DatasetSources, datasets: Datasets, name: str
    ) -> None:
        with pytest.raises(NotFound, match="none yet"):
            sources.find(wish(name))
        datasets.register(DatasetSource(root="/data/yeast"))
        with pytest.raises(NotFound, match="known: yeast"):
            sources.find(wish(name))


class TestPatterns:
    @pytest.mark.parametrize(
        "named",
        [
            {"train_images": "images/", "train_annotations": "masks/"},
            {"train_images": "images"},
            {"metadata_dir": "meta/"},
            {"metadata_dir": "meta/", "test_images": "t/*.png", "test_annotations": "t/*_m.png"},
            {"test_images": "test/", "test_annotations": "test_masks/"},
            {"train_images": "*.tif", "train_annotations": "*_masks.tif"},
        ],
    )
    def test_folders_patterns_and_metadata_are_taken(
        self, sources: DatasetSources, root: Path, named: dict[str, str]
    ) -> None:
        assert sources.find(wish(root, **named)).canonical().items() >= named.items()

    @pytest.mark.parametrize(
        ("named", "said"),
        [
            ({"train_images": "/etc/"}, "train_images is '/etc/', which leads out"),
            ({"test_images": "../x"}, "leads out of the dataset"),
            ({"metadata_dir": "a/../../b"}, "leads out of the dataset"),
            ({"train_images": "*/*.tif"}, "a pattern with one *"),
            ({"metadata_dir": "*.json"}, "it must be a folder."),
            ({"train_annotations": "masks/"}, "train_annotations needs train_images"),
            ({"test_annotations": "masks/"}, "test_annotations needs test_images"),
            ({"train_images": "*.tif"}, "train_annotations must be one as well"),
            (
                {"test_images": "*.tif", "test_annotations": "masks/"},
                "test_annotations must be one as well",
            ),
            ({"metadata_dir": "m", "train_images": "i"}, "give one of them"),
            ({"train_images": ""}, "train_images must be a text of 1 to"),
            ({"train_images": "a\nb"}, "printable characters"),
            ({"train_images": "a\0b"}, "printable characters"),
            ({"train_images": "x" * (LONGEST_PATTERN + 1)}, "train_images must be a text"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_a_sentence(
        self, sources: DatasetSources, root: Path, named: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(BadRequest) as refused:
            sources.find(wish(root, **named))
        assert said in refused.value.message

    @pytest.mark.parametrize("artifact", ["", " ", "a\0b", "x" * (LONGEST_ARTIFACT + 1), "\ud800"])
    def test_an_artifact_that_is_no_text_is_refused(
        self, sources: DatasetSources, artifact: str
    ) -> None:
        with pytest.raises(BadRequest, match="artifact must be a text"):
            sources.find(wish(artifact))
