"""Annotations and predictions of a project as label images and COCO."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pycocotools import mask as coco_mask

from ml_backend.domain import (
    FetchedFile,
    Image,
    LabelConfig,
    LabelImage,
    LabelStudioAccess,
    Prediction,
    ProjectKey,
    Task,
)
from ml_backend.errors import ImageFetchError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.stored_predictions import TaskVersions
from ml_backend.learning import Annotation, LabelledTask
from ml_backend.service.project_export import ExportedProject, Interrupted, ProjectExporter
from ml_backend.service.project_export_request import (
    DataFormat,
    ProjectExportRequest,
    Subject,
    read_project_export,
)
from ml_backend.service.said_of_tasks import annotations_of, predictions_of
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.database import Database
from ml_backend.store.predictions import ClaimState, KeptPredictions, PredictionKey
from tests.annotations_of import POLYGONS, config_of, regions_of

PROJECT = ProjectKey(origin="http://labels.example", project_id=3, created_at=1_800_000_000)
ACCESS = LabelStudioAccess(origin=PROJECT.origin)
SIZE = (60, 80)


@dataclass
class Folder:
    """A fetcher of files in a folder, and a decoder that knows their size."""

    path: Path
    fetched: list[str] = field(default_factory=list)

    def fetch(self, url: str, *, task_id: int | None, access: LabelStudioAccess) -> FetchedFile:
        """Return the file that an address ends with."""
        self.fetched.append(url)
        file = self.path / url.rpartition("/")[2]
        if not file.is_file():
            raise ImageFetchError(f"{url} answered 404; check the address.")
        return FetchedFile(path=file, sha256=url, size=file.stat().st_size)

    def decode(
        self, file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None
    ) -> Image:
        """Return an image of the one size."""
        return Image(pixels=np.zeros((*SIZE, 1), np.uint8), sha256=file.sha256)


@dataclass
class Project:
    """A project with annotations, kept predictions and images."""

    database: Database
    folder: Path
    config: LabelConfig = field(default_factory=lambda: parse_label_config(POLYGONS))

    def __post_init__(self) -> None:
        self.ledger = AnnotationLedger(self.database, clock=lambda: 1_800_000_000.0)
        self.kept = KeptPredictions(self.database)
        (self.folder / "images").mkdir()
        self.images = Folder(self.folder / "images")

    def annotate(
        self, task_id: int, result: list[dict[str, Any]], annotation_id: int = 0, **facts: Any
    ) -> None:
        """Keep an annotation and the image of its task."""
        name = f"cells {task_id}.ome.tif"
        (self.images.path / name).write_bytes(b"image %d" % task_id)
        task = LabelledTask(
            task_id=task_id, data={"image": f"http://labels.example/data/upload/3/{name}"}
        )
        annotation = Annotation(
            task_id=task_id,
            annotation_id=annotation_id or task_id * 10,
            result=result,
            **{"updated_at": 100.0, **facts},
        )
        self.ledger.record(PROJECT, annotation, task)

    def predict(self, task_id: int, result: list[dict[str, Any]], version: str = "v1") -> None:
        """Keep a prediction."""
        key = PredictionKey(project=str(PROJECT), task_id=task_id, version=version, input_hash="h")
        assert self.kept.claim(key, "engine", lease_s=10).state is ClaimState.CLAIMED
        made = Prediction(result=result, score=0.5, model_version=version)
        assert self.kept.complete(key, "engine", made)

    def export(
        self, request: ProjectExportRequest, version: str = "v1", **more: Any
    ) -> tuple[zipfile.ZipFile, ExportedProject]:
        """Return the archive."""
        notes: list[str] = []
        if request.what is Subject.ANNOTATIONS:
            said = annotations_of(self.ledger, PROJECT, every=request.every, notes=notes)
        else:
            given = {"label_studio": None, "shelf": None, **more}
            said = predictions_of(self.kept, self.ledger, PROJECT, version, notes=notes, **given)
            more = {}
        target = self.folder / "out"
        target.mkdir(exist_ok=True)
        exporter = ProjectExporter(fetcher=self.images, decode=self.images.decode)
        written = exporter.export(
            PROJECT,
            self.config,
            said,
            request,
            facts={"project": str(PROJECT)},
            notes=notes,
            access=ACCESS,
            folder=target,
            **more,
        )
        return zipfile.ZipFile(written.path), written


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Yield an empty project."""
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Project(database, tmp_path)
    database.close()


def labels_in(archive: zipfile.ZipFile, name: str) -> LabelImage:
    """Return a label image of an archive."""
    return tifffile.imread(io.BytesIO(archive.read(name))).astype(np.int32)


def table(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    """Return the rows of a table."""
    return list(csv.DictReader(io.StringIO(archive.read(name).decode())))


def drawn(*corners: tuple[int, int]) -> LabelImage:
    """Return a label image with a square of 10 px at each corner."""
    labels = np.zeros(SIZE, np.int32)
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + 10, x : x + 10] = number
    return labels


def test_annotations_become_the_label_images_that_were_drawn(project: Project) -> None:
    first, second = drawn((5, 5), (30, 40)), drawn((20, 60))
    project.annotate(1, regions_of(first))
    project.annotate(2, regions_of(second))

    archive, written = project.export(ProjectExportRequest())

    assert (labels_in(archive, "masks/task-1.tif") == first).all()
    assert (labels_in(archive, "masks/task-2.tif") == second).all()
    assert (written.images, written.objects, written.left_out) == (2, 3, ())
    rows = table(archive, "instances.csv")
    assert [(row["file"], row["instance"], row["label"]) for row in rows] == [
        ("masks/task-1.tif", "1", "Cell"),
        ("masks/task-1.tif", "2", "Cell"),
        ("masks/task-2.tif", "1", "Cell"),
    ]
    assert json.loads(archive.read("export.json"))["instances"] == 3
    assert project.images.fetched == []  # every region says the size of its image


def test_an_image_without_cells_has_an_empty_mask_of_its_size(project: Project) -> None:
    project.annotate(1, [])

    archive, _ = project.export(ProjectExportRequest())

    assert labels_in(archive, "masks/task-1.tif").shape == SIZE
    assert not labels_in(archive, "masks/task-1.tif").any()


def test_images_and_masks_have_the_same_name_so_that_one_can_train_on_them(
    project: Project,
) -> None:
    project.annotate(1, regions_of(drawn((5, 5))))

    archive, _ = project.export(ProjectExportRequest(images=True))

    assert archive.read("images/task-1.ome.tif") == b"image 1"
    assert "masks/task-1.tif" in archive.namelist()


def test_an_image_that_is_gone_is_left_out_with_a_sentence(project: Project) -> None:
    project.annotate(1, [])
    project.annotate(2, regions_of(drawn((5, 5))))
    (project.images.path / "cells 1.ome.tif").unlink()

    archive, written = project.export(ProjectExportRequest())

    (said,) = written.left_out
    assert said.startswith("Annotation 10 of task 1 is left out: ")
    assert json.loads(archive.read("export.json"))["left_out"] == [said]
    assert "masks/task-1.tif" not in archive.namelist()
    assert "masks/task-2.tif" in archive.namelist()


def test_of_several_annotations_the_one_that_counts_is_written_or_every(project: Project) -> None:
    project.annotate(1, regions_of(drawn((5, 5))), 11, updated_at=100.0)
    project.annotate(1, regions_of(drawn((30, 5))), 12, updated_at=200.0)
    project.annotate(1, regions_of(drawn((40, 5))), 13, updated_at=300.0, cancelled=True)

    one, _ = project.export(ProjectExportRequest())
    newest = labels_in(one, "masks/task-1.tif")
    every, _ = project.export(ProjectExportRequest(every=True))

    assert (newest == drawn((30, 5))).all()
    assert (labels_in(every, "masks/task-1-annotation-11.tif") == drawn((5, 5))).all()
    assert (labels_in(every, "masks/task-1-annotation-12.tif") == drawn((30, 5))).all()
    assert not any("13" in name for name in every.namelist())


def test_several_controls_have_a_folder_each(project: Project) -> None:
    project.config = config_of("PolygonLabels", "BrushLabels")
    labels = drawn((5, 5), (30, 30))
    project.annotate(1, regions_of(labels, project.config))

    archive, _ = project.export(ProjectExportRequest())

    for control in ("polygonlabels", "brushlabels"):
        assert (labels_in(archive, f"masks/{control}/task-1.tif") == labels).all()


def test_coco_masks_are_those_that_were_drawn(project: Project) -> None:
    labels = drawn((5, 5), (30, 40))
    labels[7:9, 7:9] = 0  # a hole, which polygons in COCO cannot say
    project.config = config_of("BrushLabels", options="")
    regions = regions_of(labels, project.config)
    regions[1]["value"]["brushlabels"] = ["Debris"]
    project.annotate(1, regions)

    archive, _ = project.export(ProjectExportRequest(format=DataFormat.COCO))

    coco = json.loads(archive.read("annotations.json"))
    (image,) = coco["images"]
    assert (image["height"], image["width"], image["task_id"]) == (*SIZE, 1)
    assert image["file_name"] == "cells_1.ome.tif"
    names = {one["id"]: one["name"] for one in coco["categories"]}
    assert [names[one["category_id"]] for one in coco["annotations"]] == ["Cell", "Debris"]
    for number, one in enumerate(coco["annotations"], start=1):
        found = one["segmentation"]
        if isinstance(found, list):
            runs = coco_mask.merge(coco_mask.frPyObjects(found, *SIZE))
        else:
            runs = {"size": found["size"], "counts": found["counts"].encode()}
        assert (coco_mask.decode(runs).astype(bool) == (labels == number)).all()


def test_kept_predictions_are_written_with_their_scores(project: Project) -> None:
    labels = drawn((5, 5))
    regions = regions_of(labels)
    regions[0]["score"] = 0.75
    project.annotate(1, [])  # so that the task's data is known
    project.predict(1, regions)
    project.predict(2, regions, version="other")

    archive, written = project.export(ProjectExportRequest(what=Subject.PREDICTIONS))
    coco, _ = project.export(ProjectExportRequest(what=Subject.PREDICTIONS, format=DataFormat.COCO))

    assert (labels_in(archive, "masks/task-1.tif") == labels).all()
    assert [row["score"] for row in table(archive, "instances.csv")] == ["0.75"]
    assert "LABEL_STUDIO_API_KEY" in written.left_out[0]
    (annotation,) = json.loads(coco.read("annotations.json"))["annotations"]
    assert annotation["score"] == 0.75


@dataclass
class Shelf:
    """A Label Studio with three tasks, the second of which holds a prediction."""

    regions: list[dict[str, Any]]

    def tasks(self, project_id: int) -> Iterator[Task]:
        """Yield them."""
        for number in (1, 2, 3):
            yield Task(id=number, data={"image": f"http://labels.example/{number}.png"})

    def tasks_with(self, project_id: int, version: str) -> Iterator[TaskVersions]:
        """Yield the second."""
        versions = frozenset({version})
        yield TaskVersions(task_id=2, updated_at=1.0, has_draft=False, versions=versions)

    def newest_of_task(self, task_id: int, version: str) -> Prediction | None:
        """Return its prediction."""
        assert task_id == 2
        return Prediction(result=self.regions, score=0.5, model_version=version)


def test_what_is_not_kept_any_more_is_asked_of_label_studio(project: Project) -> None:
    kept, held = drawn((5, 5)), drawn((30, 30))
    project.predict(1, regions_of(kept))
    shelf = Shelf(regions_of(held))

    archive, written = project.export(
        ProjectExportRequest(what=Subject.PREDICTIONS), label_studio=shelf, shelf=shelf
    )

    assert (labels_in(archive, "masks/task-1.tif") == kept).all()
    assert (labels_in(archive, "masks/task-2.tif") == held).all()
    assert written.left_out == (
        "One task has no prediction of v1; choose Retrieve Predictions for what is missing in "
        "Label Studio, then export again.",
    )


def test_choices_are_a_table_of_their_own(project: Project) -> None:
    project.config = parse_label_config(
        '<View><Image name="img" value="$image"/><Choices name="kind" toName="img" '
        'choice="multiple"><Choice value="a"/><Choice value="b"/></Choices></View>'
    )
    chosen = {"from_name": "kind", "to_name": "img", "type": "choices"}
    project.annotate(1, [{**chosen, "value": {"choices": ["b", "a"]}}])

    archive, _ = project.export(ProjectExportRequest())

    assert table(archive, "choices.csv") == [
        {"task": "1", "annotation": "10", "control": "kind", "choices": "a; b", "score": ""}
    ]


def test_a_region_that_cannot_be_read_costs_its_annotation_only(project: Project) -> None:
    broken = regions_of(drawn((5, 5)))
    broken[0]["value"] = {"points": "no"}
    project.annotate(1, broken)
    project.annotate(2, regions_of(drawn((5, 5))))

    archive, written = project.export(ProjectExportRequest())

    assert "task 1 is left out" in written.left_out[0]
    assert "masks/task-2.tif" in archive.namelist()


def test_an_export_that_nobody_waits_for_ends(project: Project) -> None:
    project.annotate(1, regions_of(drawn((5, 5))))

    with pytest.raises(Interrupted):
        project.export(ProjectExportRequest(), should_stop=lambda: True)


def test_a_request_survives_the_way_to_the_engine() -> None:
    request = ProjectExportRequest(
        what=Subject.PREDICTIONS, format=DataFormat.COCO, images=True, version="v1"
    )

    assert read_project_export(json.dumps(request.canonical()).encode()) == request
