"""From the annotation ledger to what classifiers learn from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ml_backend.errors import TrainingError
from ml_backend.learning import LearningOptions, Multiple, Side, TrainingParameters
from ml_backend.store.database import Database
from ml_backend.training.chosen_images import ChoicesDataset
from tests.unit.training.choices_world import OBJECTS, ChoicesWorld, cell, choice_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ChoicesWorld]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield ChoicesWorld(tmp_path, database)
    database.close()


def tasks_of(dataset: ChoicesDataset) -> list[int]:
    return sorted(image.task_id for image in (*dataset.training, *dataset.hold_out))


def test_each_control_has_its_own_choices_and_one_in_five_images_is_held_out(
    world: ChoicesWorld,
) -> None:
    world.label(20)
    world.choose(1, choice_of("kind", "bright"), choice_of("traits", "striped", "dotted"))

    dataset = world.dataset()

    assert (len(dataset.training), len(dataset.hold_out)) == (16, 4)
    assert dataset.report["images"] == {"training": 16, "hold_out": 4}
    assert dataset.report["chosen"]["traits"] == {"striped": 1, "dotted": 1}
    json.dumps(dataset.manifest)
    json.dumps(dataset.report)


def test_a_side_that_was_decided_stays(world: ChoicesWorld) -> None:
    world.label(10)
    before = {image.task_id for image in world.dataset().hold_out}
    world.label(10, first=11)

    after = {image.task_id for image in world.dataset().hold_out}

    assert before < after


def test_an_empty_project_has_an_empty_dataset(world: ChoicesWorld) -> None:
    dataset = world.dataset()

    assert tasks_of(dataset) == []


def test_skipped_tasks_and_those_where_nothing_was_chosen_do_not_count(
    world: ChoicesWorld,
) -> None:
    world.label(5)
    world.choose(1, choice_of("kind", "bright"), cancelled=True)
    world.choose(2)

    assert tasks_of(world.dataset()) == [3, 4, 5]


def test_a_choice_that_the_config_lost_does_not_count_and_is_told_of(world: ChoicesWorld) -> None:
    world.label(4)
    world.choose(1, choice_of("kind", "of the past"))

    dataset = world.dataset()

    assert tasks_of(dataset) == [2, 3, 4]
    assert "no longer has the choice of the past" in dataset.report["left_out"][0]


def test_several_choices_where_one_is_taken_are_left_out(world: ChoicesWorld) -> None:
    world.label(4)
    world.choose(1, choice_of("kind", "bright", "dark, very"))

    dataset = world.dataset()

    assert tasks_of(dataset) == [2, 3, 4]
    assert "takes one choice" in dataset.report["left_out"][0]


def test_an_unreadable_image_among_good_ones_is_left_out(world: ChoicesWorld) -> None:
    world.label(6)
    world.images["2.png"] = np.zeros((0, 0, 1), np.uint8)
    del world.images["3.png"]

    dataset = world.dataset()

    assert tasks_of(dataset) == [1, 4, 5, 6]
    assert len(dataset.report["left_out"]) == 2
    assert "3" in dataset.manifest["not_fetched"]  # counts as new the next time
    assert "2" in dataset.manifest["task_hashes"]


def test_too_many_images_that_cannot_be_fetched_fail_the_session(world: ChoicesWorld) -> None:
    world.label(6)
    world.images.clear()

    with pytest.raises(TrainingError, match="could not be fetched"):
        world.dataset()


def test_the_same_picture_is_on_one_side_only(world: ChoicesWorld) -> None:
    for task_id in range(1, 13):
        world.add_image(task_id, "bright", seed=task_id % 4)
        world.choose(task_id, choice_of("kind", "bright"))

    dataset = world.dataset()

    pictures = [{image.pixels for image in side} for side in (dataset.training, dataset.hold_out)]
    assert pictures[0] & pictures[1] == set()
    assert tasks_of(dataset) == list(range(1, 13))


def test_the_newest_of_several_annotations_counts_or_all_of_them(world: ChoicesWorld) -> None:
    world.label(3)
    world.choose(1, choice_of("kind", "bright"), annotation_id=11, updated_at=200.0)

    newest = world.dataset()
    every = world.dataset(LearningOptions(parameters=TrainingParameters(multiple=Multiple.ALL)))

    (image,) = [one for one in (*newest.training, *newest.hold_out) if one.task_id == 1]
    assert image.chosen == {"kind": {"bright"}}
    assert len([one for one in (*every.training, *every.hold_out) if one.task_id == 1]) == 2
    assert {one.side for one in every.hold_out} == {Side.HOLD_OUT}


def test_an_image_is_embedded_once(world: ChoicesWorld) -> None:
    world.label(8)
    world.dataset()
    world.project_images()

    world.dataset()

    assert world.embedder.embedded == 8


def test_single_objects_have_the_label_of_their_region_and_its_choices(
    world: ChoicesWorld,
) -> None:
    world.config = OBJECTS
    for task_id in (1, 2, 3):
        world.add_image(task_id, "bright")
        world.choose(
            task_id,
            cell(1, "Round", 5),
            cell(2, "Long", 60),
            choice_of("health", "dead") | {"id": "cell-2"},
        )

    dataset = world.dataset()

    images = [*dataset.training, *dataset.hold_out]
    assert sorted(image.item for image in images) == [
        (task_id, number) for task_id in (1, 2, 3) for number in (1, 2)
    ]
    assert {image.number: image.chosen for image in images} == {
        1: {"cells/labels": {"Round"}},
        2: {"cells/labels": {"Long"}, "health": {"dead"}},
    }
    assert len({image.task_id for image in dataset.hold_out}) == 1  # all objects of an image
    assert len(dataset.hold_out) == 2


def test_regions_that_cannot_be_read_are_left_out_with_their_annotation(
    world: ChoicesWorld,
) -> None:
    world.config = OBJECTS
    for task_id in (1, 2):
        world.add_image(task_id, "bright")
        world.choose(task_id, cell(1, "Round", 5))
    world.choose(1, cell(1, "Round", 5) | {"value": None})

    dataset = world.dataset()

    assert tasks_of(dataset) == [2]
    assert "has no value" in dataset.report["left_out"][0]


def test_clusters_are_made_of_the_images_that_can_be_read(world: ChoicesWorld) -> None:
    tasks = [world.add_image(task_id, "bright") for task_id in (1, 2, 3, 4)]
    world.images["2.png"] = np.zeros((0, 0, 1), np.uint8)
    del world.images["3.png"]

    images = world.project_embedder().embed(tasks)

    assert images.items == ((1, 0), (4, 0))
    assert images.embeddings.shape == (2, 4)
    assert [sentence.split(" is in no cluster")[0] for sentence in images.left_out] == [
        "Task 3",
        "Task 2",
    ]


def test_embedding_that_was_broken_off_goes_on_where_it_was(world: ChoicesWorld) -> None:
    tasks = [world.add_image(task_id, "bright") for task_id in range(1, 71)]
    first = world.project_embedder()
    first.embed(tasks[:40])

    world.project_embedder().embed(tasks)

    assert world.embedder.embedded == 70
