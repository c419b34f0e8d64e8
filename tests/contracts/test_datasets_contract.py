"""What the table of datasets promises on every database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ml_backend.datasets import DATASET_ORIGIN, DatasetSource
from ml_backend.domain import ProjectKey
from ml_backend.learning import TrainingParameters, Trigger, Version, VersionState
from ml_backend.store.database import Database
from ml_backend.store.datasets import LONGEST_NAME, Datasets, DatasetUse, name_of
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from tests.contracts.learning_records import PROJECT, component
from tests.fakes import ManualClock

NUCLEI = DatasetSource(root="/data/nuclei")


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def datasets(database: Database, clock: ManualClock) -> Datasets:
    """Return the empty table."""
    return Datasets(database, clock=clock)


class TestRegistering:
    def test_a_new_source_gets_the_name_of_its_folder(
        self, datasets: Datasets, clock: ManualClock
    ) -> None:
        registered = datasets.register(NUCLEI)
        assert (registered.name, registered.source) == ("nuclei", NUCLEI)
        assert registered.created_at == clock.now

    def test_the_same_source_is_the_same_dataset(
        self, datasets: Datasets, clock: ManualClock
    ) -> None:
        first = datasets.register(NUCLEI)
        clock.forward(60)
        assert datasets.register(replace(NUCLEI)) == first
        assert datasets.all() == [first]

    def test_a_name_that_is_taken_gets_a_number(self, datasets: Datasets) -> None:
        roots = ["/a/nuclei", "/b/nuclei", "/c/nuclei-2", "/d/nuclei"]
        names = [datasets.register(DatasetSource(root=root)).name for root in roots]
        assert names == ["nuclei", "nuclei-2", "nuclei-2-2", "nuclei-3"]

    def test_another_pattern_in_the_same_folder_is_another_dataset(
        self, datasets: Datasets
    ) -> None:
        other = replace(NUCLEI, train_images="images/*.tif", train_annotations="masks/*.png")
        assert datasets.register(other) != datasets.register(NUCLEI)

    def test_a_name_of_any_script_comes_back_as_it_was(self, datasets: Datasets) -> None:
        source = DatasetSource(root="/data/Zellkörper 細胞", metadata_dir="métadonnées")
        registered = datasets.register(source)
        assert registered.name == "Zellkörper-細胞"
        assert datasets.get(registered.name) == registered

    def test_concurrent_registers_of_one_source_give_one_row(self, datasets: Datasets) -> None:
        start = threading.Barrier(8)

        def register(_number: int) -> int:
            start.wait(timeout=30)
            return datasets.register(NUCLEI).number

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(register, range(8)))) == 1
        assert len(datasets.all()) == 1

    def test_concurrent_registers_of_namesakes_get_names_of_their_own(
        self, datasets: Datasets
    ) -> None:
        start = threading.Barrier(8)

        def register(number: int) -> str:
            start.wait(timeout=30)
            return datasets.register(DatasetSource(root=f"/data/{number}/nuclei")).name

        with ThreadPoolExecutor(8) as pool:
            names = set(pool.map(register, range(8)))
        assert names == {"nuclei", *(f"nuclei-{number}" for number in range(2, 9))}


class TestLookingUp:
    def test_a_dataset_is_found_by_its_name_and_by_its_key(self, datasets: Datasets) -> None:
        registered = datasets.register(NUCLEI)
        assert datasets.get("nuclei") == registered
        assert datasets.by_key(registered.key) == registered
        assert registered.key.origin == DATASET_ORIGIN

    def test_what_is_unknown_is_none(self, datasets: Datasets) -> None:
        key = datasets.register(NUCLEI).key
        assert datasets.get("cells") is None
        assert datasets.by_key(replace(key, project_id=key.project_id + 1)) is None

    def test_the_key_of_a_project_or_of_other_records_is_no_datasets(
        self, datasets: Datasets
    ) -> None:
        key = datasets.register(NUCLEI).key
        assert datasets.by_key(replace(PROJECT, project_id=key.project_id)) is None
        assert datasets.by_key(replace(key, created_at=key.created_at + 1)) is None

    def test_pages_begin_with_the_newest_and_hold_each_dataset_once(
        self, datasets: Datasets
    ) -> None:
        made = [datasets.register(DatasetSource(root=f"/data/{number}")) for number in range(5)]
        first = datasets.all(limit=2)
        second = datasets.all(limit=2, after=first[-1])
        third = datasets.all(limit=2, after=second[-1])
        assert first + second + third == made[::-1]


class TestUse:
    def test_sessions_and_models_of_each_are_counted(
        self, database: Database, datasets: Datasets
    ) -> None:
        used, unused = datasets.register(NUCLEI), datasets.register(replace(NUCLEI, root="/data/x"))
        sessions, versions = Sessions(database), Versions(database)
        for name in ("v1", "v2", None):
            asked = sessions.request(
                used.key,
                controls=["masks"],
                trigger=Trigger.PERSON,
                parameters=TrainingParameters(),
                dataset=used.name,
            )
            if name is not None:
                versions.add(version(used.key, name, asked.id))
        versions.add(version(PROJECT, "v1", None))

        assert datasets.use_of([used, unused]) == {
            "nuclei": DatasetUse(sessions=3, models=2),
            "x": DatasetUse(sessions=0, models=0),
        }
        assert datasets.use_of([]) == {}


def version(key: ProjectKey, name: str, session_id: str | None) -> Version:
    """Return a network that was trained."""
    return Version(
        project=key,
        name=name,
        state=VersionState.CANDIDATE,
        controls=("masks",),
        component=component(name),
        session_id=session_id,
        parent="nuclei-1",
        created_at=1.0,
        metrics={},
    )


class TestNames:
    @pytest.mark.parametrize(
        ("root", "name"),
        [
            ("/data/nuclei/", "nuclei"),
            ("https://host/sets/nuclei.zip?download=1", "nuclei"),
            ("https://host/sets/my%20nuclei.tar.gz", "my-nuclei"),
            ("https://host/", "dataset"),
            ("/", "dataset"),
            ("C:\\data\\nuclei", "nuclei"),
            ("/data/a?b#c", "a-b-c"),
            ("/data/..", "dataset"),
            ("/data/" + "x" * 200, "x" * LONGEST_NAME),
        ],
    )
    def test_a_name_is_the_last_part_of_the_root(self, root: str, name: str) -> None:
        assert name_of(root) == name
