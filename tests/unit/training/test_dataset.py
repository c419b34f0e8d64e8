"""From the annotation ledger to what a session learns from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from ml_backend.domain import FetchedFile, Image, LabelImage, LabelStudioAccess, ProjectKey
from ml_backend.errors import ImageFetchError, TrainingError
from ml_backend.learning import (
    Annotation,
    LabelledTask,
    LearningOptions,
    Multiple,
    Side,
    TrainingParameters,
)
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.database import Database
from ml_backend.store.splits import Splits
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset import Dataset, DatasetBuilder
from ml_backend.training.session_limits import SessionLimits
from tests.annotations_of import rectangle, regions_of, squares, target_of
from tests.label_images import renumber
from tests.shared_data import SHARED, needs_data

PROJECT = ProjectKey(origin="http://labels.example", project_id=3, created_at=1_800_000_000)
ACCESS = LabelStudioAccess(origin=PROJECT.origin)
OPTIONS = LearningOptions()


@dataclass
class Images:
    """A fetcher and decoder of images that only exist here."""

    pixels: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    fetched: list[int | None] = field(default_factory=list)

    def fetch(self, url: str, *, task_id: int | None, access: LabelStudioAccess) -> FetchedFile:
        """Return a file that stands for the address."""
        self.fetched.append(task_id)
        if url not in self.pixels:
            raise ImageFetchError(f"{url} answered 404; check the address.")
        return FetchedFile(path=Path(url), sha256=url, size=1)

    def decode(
        self, file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None
    ) -> Image:
        """Return the pixels of that address."""
        return Image(pixels=self.pixels[str(file.path)], sha256=file.sha256)


@dataclass
class World:
    """A project with tasks and annotations."""

    database: Database
    images: Images = field(default_factory=Images)
    authors: dict[int, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = AnnotationLedger(self.database, clock=lambda: 1_800_000_000.0)
        self.splits = Splits(self.database)

    def annotate(
        self,
        task_id: int,
        labels: LabelImage | None,
        *,
        data: Mapping[str, Any] | None = None,
        pixels: np.ndarray[Any, Any] | None = None,
        more: list[dict[str, Any]] | None = None,
        origin: str = "manual",
        **facts: Any,
    ) -> None:
        """Keep an annotation that draws `labels`."""
        url = f"image-{task_id}.png"
        if url not in self.images.pixels:
            shape = (100, 100) if labels is None else labels.shape
            self.images.pixels[url] = (
                np.full((*shape, 1), task_id, np.uint8) if pixels is None else pixels
            )
        regions = [] if labels is None else regions_of(labels, origin=origin)
        given = {"annotation_id": task_id * 10, "updated_at": 100.0, **facts}
        annotation = Annotation(task_id=task_id, result=[*regions, *(more or [])], **given)
        task = LabelledTask(task_id=task_id, data={"image": url, **(data or {})})
        self.ledger.record(PROJECT, annotation, task)

    def build(self, options: LearningOptions = OPTIONS, **more: Any) -> Dataset:
        """Return the dataset as of now."""
        builder = DatasetBuilder(
            fetcher=self.images,
            decode=self.images.decode,
            ledger=self.ledger,
            splits=self.splits,
            authors=lambda prediction: self.authors.get(prediction, frozenset()),
            **more,
        )
        return builder.build(PROJECT, target_of(), options, ACCESS)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield World(database)
    database.close()


def tasks_of(dataset: Dataset) -> list[int]:
    return sorted(image.task_id for image in (*dataset.training, *dataset.hold_out))


def test_images_are_split_once_and_stay_where_they_are(world: World) -> None:
    for task_id in range(1, 6):
        world.annotate(task_id, squares((task_id, 5)))
    first = world.build()
    for task_id in range(6, 21):
        world.annotate(task_id, squares((task_id, 5)))
    second = world.build()

    assert len(first.hold_out) == 1
    assert len(second.hold_out) == 4
    assert {image.task_id for image in first.hold_out} <= {i.task_id for i in second.hold_out}
    assert not {i.task_id for i in first.training} & {i.task_id for i in second.hold_out}
    assert all(image.side is Side.HOLD_OUT for image in second.hold_out)


def test_the_manifest_says_what_was_learned_from(world: World) -> None:
    for task_id in range(1, 5):
        world.annotate(task_id, squares((5, 5), (40, 40)))

    dataset = world.build()

    manifest = json.loads(json.dumps(dataset.manifest, allow_nan=False))
    hashes = {str(task_id): text for task_id, text in world.ledger.task_hashes(PROJECT).items()}
    assert manifest["task_hashes"] == hashes
    assert [image["task"] for image in manifest["images"]] == [
        image.task_id for image in (*dataset.training, *dataset.hold_out)
    ]
    (counted,) = world.ledger.counted(PROJECT, task_ids=[1])
    entry = next(image for image in manifest["images"] if image["task"] == 1)
    assert entry["content_hash"] == counted.content_hash
    assert entry["annotations"] == [10]
    assert entry["objects"] == 2
    assert entry["image_sha256"] == "image-1.png"
    assert {image["side"] for image in manifest["images"]} == {"training", "hold_out"}
    json.dumps(dataset.report, allow_nan=False)
    assert dataset.report["images"] == {"training": 3, "hold_out": 1}


def test_tasks_of_one_well_are_never_on_both_sides(world: World) -> None:
    for task_id in range(1, 13):
        world.annotate(task_id, squares((5, 5)), data={"well": f"A{task_id % 4}"})

    dataset = world.build(LearningOptions(group_field="well"))

    wells = [{image.group for image in side} for side in (dataset.training, dataset.hold_out)]
    assert len(wells[1]) == 1
    assert not wells[0] & wells[1]


def test_a_picture_imported_twice_is_on_one_side(world: World) -> None:
    same = np.zeros((100, 100, 1), np.uint8)
    for task_id in range(1, 7):
        world.annotate(task_id, squares((5, 5)), pixels=same if task_id < 3 else None)

    dataset = world.build()

    sides = {image.task_id: image.side for image in (*dataset.training, *dataset.hold_out)}
    assert sides[1] is sides[2]


def test_a_picture_of_several_wells_is_held_out_when_one_of_them_is(world: World) -> None:
    same = np.zeros((100, 100, 1), np.uint8)
    for task_id in range(1, 6):
        world.annotate(task_id, squares((5, 5)), data={"well": f"A{task_id}"}, pixels=same)

    dataset = world.build(LearningOptions(group_field="well"))

    assert len(dataset.hold_out) == 1
    assert not dataset.training
    assert len(dataset.report["left_out"]) == 4
    assert "the same picture is held out" in dataset.report["left_out"][0]


def test_pictures_held_out_stay_so_when_groups_are_named_later(world: World) -> None:
    for task_id in range(1, 11):
        world.annotate(task_id, squares((5, 5)), data={"well": f"A{task_id % 5}"})
    before = {image.task_id for image in world.build().hold_out}

    after = world.build(LearningOptions(group_field="well"))

    assert before
    assert not before & {image.task_id for image in after.training}


def test_a_skipped_task_leaves_and_an_empty_one_is_an_example_without_objects(
    world: World,
) -> None:
    world.annotate(1, squares((5, 5)))
    world.annotate(2, None)
    world.annotate(3, squares((5, 5)), cancelled=True)

    dataset = world.build()

    assert tasks_of(dataset) == [1, 2]
    empty = next(image for image in dataset.training if image.task_id == 2)
    assert empty.objects == 0
    assert empty.finished is None
    assert dataset.report["empty_images"]["training"] == 1


def test_of_several_annotators_the_ground_truth_or_the_newest_counts(world: World) -> None:
    world.annotate(1, squares((5, 5)), annotation_id=11, updated_at=100.0)
    world.annotate(1, squares((5, 5), (40, 40)), annotation_id=12, updated_at=200.0)
    world.annotate(2, squares((5, 5)), annotation_id=21, updated_at=100.0, ground_truth=True)
    world.annotate(2, squares((5, 5), (40, 40)), annotation_id=22, updated_at=200.0)

    chosen = {image.task_id: image.annotation_ids for image in world.build().training}

    assert chosen == {1: (12,), 2: (21,)}


def test_all_annotators_together_weigh_as_much_as_one(world: World) -> None:
    world.annotate(1, squares((5, 5)), annotation_id=11)
    world.annotate(1, squares((5, 5), (40, 40)), annotation_id=12)
    world.annotate(2, squares((5, 5)))

    parameters = TrainingParameters(multiple=Multiple.ALL)
    dataset = world.build(LearningOptions(parameters=parameters))

    weights = {image.annotation_ids: image.weight for image in dataset.training}
    assert weights == {(11,): 0.5, (12,): 0.5, (20,): 1.0}


def test_what_cannot_be_fetched_or_read_is_named_and_the_rest_goes_on(world: World) -> None:
    for task_id in range(1, 6):
        world.annotate(task_id, squares((5, 5)))
    del world.images.pixels["image-1.png"]
    broken = regions_of(squares((5, 5)))
    broken[0]["value"]["points"] = "nonsense"
    world.annotate(2, None, more=broken, updated_at=200.0)

    dataset = world.build()

    assert tasks_of(dataset) == [3, 4, 5]
    said = "\n".join(dataset.report["left_out"])
    assert "Task 1 is left out" in said
    assert "404" in said
    assert "Annotation 20 of task 2 is left out" in said


def test_a_task_whose_image_cannot_be_fetched_is_news_to_the_next_session(world: World) -> None:
    for task_id in range(1, 6):
        world.annotate(task_id, squares((5, 5)))
    del world.images.pixels["image-2.png"]

    manifest = world.build().manifest

    assert sorted(manifest["task_hashes"]) == ["1", "3", "4", "5"]
    assert manifest["not_fetched"] == {"2": world.ledger.task_hashes(PROJECT)[2]}


@pytest.mark.parametrize(("missing", "goes_on"), [(2, True), (3, False), (10, False)])
def test_a_server_that_is_away_spoils_no_session(world: World, missing: int, goes_on: bool) -> None:
    for task_id in range(1, 11):
        world.annotate(task_id, squares((5, 5)))
    for task_id in range(1, missing + 1):
        del world.images.pixels[f"image-{task_id}.png"]

    if goes_on:
        assert len(tasks_of(world.build())) == 10 - missing
        return
    with pytest.raises(TrainingError, match=r"3 of the images of 10 tasks.*resume"):
        world.build()
    assert world.images.fetched == [1, 2, 3]  # it is not waited for each of them
    assert world.splits.sides(PROJECT) == {}


def test_of_very_many_tasks_those_annotated_last_count(world: World) -> None:
    for task_id in range(1, 21):
        world.annotate(task_id, squares((5, 5)), updated_at=1000.0 - task_id)

    dataset = world.build(limits=SessionLimits(training=6, hold_out=1))

    assert world.images.fetched == [1, 2, 3, 4, 5, 6, 7]
    assert len(dataset.training) == 6
    assert len(dataset.hold_out) == 1
    assert "Of the 20 annotated tasks the 7 annotated last" in dataset.report["remarks"][0]
    # those that are too old are no news to the next session
    assert len(dataset.manifest["task_hashes"]) == 20


def test_each_side_takes_so_many_tasks_and_no_more(world: World) -> None:
    for task_id in range(1, 11):
        world.annotate(task_id, squares((5, 5)), updated_at=1000.0 - task_id)
    every = world.build()
    held_out = sorted(image.task_id for image in every.hold_out)

    dataset = world.build(limits=SessionLimits(training=10, hold_out=1))

    assert len(held_out) == 2
    assert [image.task_id for image in dataset.hold_out] == held_out[:1]
    assert len(dataset.training) == 8
    assert "Of the 2 tasks that are held out the 1 annotated last" in dataset.report["remarks"][0]


def test_images_are_put_away_one_by_one(world: World) -> None:
    for task_id in range(1, 4):
        world.annotate(task_id, squares((5, 5)))
    events: list[str] = []

    def keep(image: AnnotatedImage) -> AnnotatedImage:
        events.append(f"kept {image.task_id}")
        return replace(image, notes=("put away",))

    dataset = world.build(keep=keep, on_task=lambda done, _: events.append(f"began {done + 1}"))

    assert events == ["began 1", "kept 1", "began 2", "kept 2", "began 3", "kept 3"]
    assert all(image.notes == ("put away",) for image in dataset.training)


@pytest.mark.parametrize("why", ["cut by the region", "covered by another label"])
def test_an_annotation_that_says_nothing_of_any_pixel_is_left_out(world: World, why: str) -> None:
    world.annotate(1, squares((5, 5)))
    if why == "cut by the region":
        world.annotate(2, squares((20, 20), size=40), more=[rectangle(30, 30, 10, 10, "Done")])
    else:
        debris = regions_of(squares((0, 0), size=100))
        for region in debris:
            region["value"]["polygonlabels"] = ["Debris"]
        world.annotate(2, None, more=debris)

    dataset = world.build(LearningOptions(roi_label="Done"))

    assert tasks_of(dataset) == [1]
    assert "Annotation 20 of task 2 is left out" in dataset.report["left_out"][0]
    assert "no pixel" in dataset.report["left_out"][0]


@pytest.mark.parametrize(("width", "is_used"), [(32766, True), (32767, False), (40_000, False)])
def test_an_image_too_long_to_cut_crops_from_is_left_out(
    world: World, width: int, is_used: bool
) -> None:
    labels = np.zeros((2, width), np.int32)
    world.annotate(1, None, pixels=np.zeros((*labels.shape, 1), np.uint8))

    dataset = world.build()

    assert tasks_of(dataset) == ([1] if is_used else [])
    if not is_used:
        assert f"{width} x 2 pixels" in dataset.report["left_out"][0]


def test_what_is_not_finished_does_not_count(world: World) -> None:
    done = rectangle(0, 0, 50, 100, "Done")
    world.annotate(1, squares((5, 5), (5, 45), (5, 80)), more=[done])

    (image,) = world.build(LearningOptions(roi_label="Done")).training

    assert np.array_equal(image.labels, squares((5, 5)))
    assert image.finished is not None
    assert image.finished[:, :45].all()
    assert not image.finished[5:15, 45:50].any()
    assert not image.finished[:, 50:].any()


@pytest.mark.parametrize("leave_out", [False, True])
def test_half_finished_tasks_are_named_and_left_out_on_request(
    world: World, leave_out: bool
) -> None:
    world.annotate(1, squares((5, 5)))
    world.annotate(2, squares(*[(row, 5) for row in range(0, 100, 12)]))
    world.annotate(3, squares((5, 5)), more=[rectangle(0, 0, 50, 50, "Done")])
    parameters = TrainingParameters(leave_out_unfinished=leave_out)

    dataset = world.build(
        LearningOptions(parameters=parameters, roi_label="Done"), count=lambda _: 30
    )

    assert [one["task"] for one in dataset.report["unfinished"]] == [1]
    assert tasks_of(dataset) == ([2, 3] if leave_out else [1, 2, 3])
    key = "left_out" if leave_out else "remarks"
    assert "finish it" in dataset.report[key][0]


def test_images_with_too_few_objects_are_not_trained_on_but_empty_ones_are(world: World) -> None:
    world.annotate(1, squares((5, 5)))
    world.annotate(2, None)
    parameters = TrainingParameters(min_train_masks=2)

    dataset = world.build(LearningOptions(parameters=parameters))

    assert tasks_of(dataset) == [2]
    assert "model_min_train_masks" in dataset.report["left_out"][0]


def test_the_size_of_the_objects_is_measured(world: World) -> None:
    world.annotate(1, squares((5, 5), (40, 40), size=10))
    world.annotate(2, squares((5, 5), size=20))

    dataset = world.build()

    side = np.sqrt(4 / np.pi)  # of the disc of a square's area, as part of its edge
    assert dataset.diameter == pytest.approx(10 * side)
    assert dataset.diameter_spread == pytest.approx(2.0)


def test_an_image_with_a_lone_speck_says_nothing_of_how_much_sizes_differ(world: World) -> None:
    world.annotate(1, squares((5, 5), (40, 40), (70, 70), size=10))
    world.annotate(2, squares((5, 5), size=2))

    assert world.build().diameter_spread == 1.0


def test_without_an_object_there_is_no_size(world: World) -> None:
    world.annotate(1, None)

    assert world.build().diameter is None


def test_accepted_predictions_that_are_held_out_are_traced_to_their_networks(
    world: World,
) -> None:
    for task_id in range(1, 6):
        world.annotate(
            task_id, squares((5, 5)), origin="prediction", parent_prediction=100 + task_id
        )
        world.authors[100 + task_id] = frozenset({f"weights {task_id}"})

    dataset = world.build()

    (held_out,) = dataset.hold_out
    assert held_out.untouched
    assert held_out.accepted_from == {f"weights {held_out.task_id}"}
    assert not any(image.accepted_from for image in dataset.training)


def test_a_task_whose_data_never_came_is_named(world: World) -> None:
    world.annotate(1, squares((5, 5)))
    annotation = replace(world.ledger.counted(PROJECT)[0], task_id=2, annotation_id=20)
    world.ledger.record(PROJECT, annotation, None)

    dataset = world.build()

    assert tasks_of(dataset) == [1]
    assert "LABEL_STUDIO_API_KEY" in dataset.report["left_out"][0]


def test_whoever_waits_is_told_and_can_stop_it(world: World) -> None:
    world.annotate(1, squares((5, 5)))
    world.annotate(2, squares((5, 5)))

    def stop(done: int, total: int) -> None:
        assert total == 2
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.build(on_task=stop)
    assert world.images.fetched == [1]


@needs_data
def test_real_outlines_come_back_to_the_pixel(world: World) -> None:
    masks = sorted((SHARED / "usiigaci_phase" / "masks").glob("*.png"))[:3]
    truth = {}
    for task_id, path in enumerate(masks, start=1):
        whole = np.asarray(Picture.open(path)).astype(np.int32)
        truth[task_id] = renumber(whole[300:556, 300:620], min_size=30)
        picture = np.asarray(Picture.open(next(path.parent.parent.glob(f"images/{path.stem}.*"))))
        pixels = picture[300:556, 300:620].reshape(256, 320, -1)
        world.annotate(task_id, truth[task_id], pixels=pixels)

    dataset = world.build()

    assert len(dataset.hold_out) == 1
    for image in (*dataset.training, *dataset.hold_out):
        drawn = truth[image.task_id]
        agreeing = ((image.labels > 0) == (drawn > 0)).mean()
        assert agreeing > 0.995
        assert image.objects == drawn.max()
    assert dataset.diameter is not None
    assert 30 < dataset.diameter < 90
