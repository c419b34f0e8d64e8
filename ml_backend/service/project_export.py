"""The annotations or predictions of a project as files: label images or COCO, in one archive."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ml_backend.domain import (
    ChoicesControl,
    Control,
    Fetcher,
    LabelConfig,
    LabelStudioAccess,
    ProjectKey,
)
from ml_backend.errors import BackendError, BadRequest, ImageError
from ml_backend.formats.coco import CocoCategory, CocoImage, CocoObject, objects_in, write_coco
from ml_backend.formats.label_tiff import write_label_tiff
from ml_backend.labelstudio.annotations import ReadInstances, from_regions
from ml_backend.labelstudio.choices import read_chosen
from ml_backend.service.exported_images import ExportedImages, ImageFrame
from ml_backend.service.file_names import safe_name
from ml_backend.service.project_export_request import DataFormat, ProjectExportRequest
from ml_backend.service.said_of_tasks import Said
from ml_backend.service.task_prediction import Decoder

SUMMARY: Final = "export.json"
COCO_FILE: Final = "annotations.json"
INSTANCES: Final = "instances.csv"
CHOICES: Final = "choices.csv"
_MOST_NAMED: Final = 1000  # sentences in the summary


class Interrupted(Exception):
    """Nobody waits for the export any more."""


@dataclass(frozen=True, kw_only=True)
class ExportedProject:
    """An archive that was written."""

    path: Path
    images: int
    objects: int
    left_out: tuple[str, ...]  # a sentence each


@dataclass(frozen=True, kw_only=True)
class ProjectExporter:
    """Writes archives."""

    fetcher: Fetcher
    decode: Decoder

    def export(
        self,
        project: ProjectKey,
        config: LabelConfig,
        said: Iterable[Said],
        request: ProjectExportRequest,
        *,
        facts: Mapping[str, Any],
        notes: list[str],
        access: LabelStudioAccess,
        folder: Path,
        should_stop: Callable[[], bool] = lambda: False,
        on_task: Callable[[int], None] = lambda _done: None,
    ) -> ExportedProject:
        """Return the archive of a project, written into an empty folder.

        Args:
            project: Whose.
            config: Its label config.
            said: What is exported.
            request: How.
            facts: More for the summary, JSON-able.
            notes: Sentences for the summary; `said` may add to them while it is read.
            access: To the images.
            folder: Empty; the caller removes it.
            should_stop: Asked before each task.
            on_task: Told how many are done.

        Raises:
            Interrupted: `should_stop` said so.
            StoreError, LabelStudioError: of `said`.
            OSError: the disk is full or cannot be written.
        """
        path = folder / f"project-{project.project_id}-{request.what}-{request.format}.zip"
        with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
            writing = _Writing(
                archive=archive,
                config=config,
                request=request,
                source=ExportedImages(
                    fetcher=self.fetcher,
                    decode=self.decode,
                    access=access,
                    with_files=request.images,
                ),
                notes=notes,
            )
            if request.format is DataFormat.COCO:
                aside = folder / COCO_FILE
                with aside.open("wb") as file:
                    # the categories, which grow with the images, are written after them
                    images = writing.coco_images(_watched(said, should_stop, on_task))
                    write_coco(file, images, writing.categories, info={"project": str(project)})
                archive.write(aside, COCO_FILE)
                aside.unlink()
            else:
                for one in _watched(said, should_stop, on_task):
                    writing.label_images(one)
            writing.tables(facts)
        return ExportedProject(
            path=path, images=writing.images, objects=writing.objects, left_out=tuple(notes)
        )


def _watched(
    said: Iterable[Said], should_stop: Callable[[], bool], on_task: Callable[[int], None]
) -> Iterator[Said]:
    for done, one in enumerate(said, start=1):
        if should_stop():
            raise Interrupted
        yield one
        on_task(done)


@dataclass(kw_only=True)
class _Writing:
    """One archive that is being written."""

    archive: zipfile.ZipFile
    config: LabelConfig
    request: ProjectExportRequest
    source: ExportedImages
    notes: list[str]
    images: int = 0
    objects: int = 0
    categories: list[CocoCategory] = field(default_factory=list)  # COCO's come after the images
    instance_rows: list[tuple[Any, ...]] = field(default_factory=list)
    choice_rows: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for control in self.config.controls:
            for label in control.labels:
                self._category(control, label)

    def label_images(self, one: Said) -> None:
        """Write the label images of a task."""
        for value_key, frame, found in self._frames(one):
            for control, read in found:
                name = self._mask_name(one, control)
                with self.archive.open(name, "w") as file:
                    packed = io.BytesIO()
                    write_label_tiff(packed, read.labels)
                    file.write(packed.getbuffer())
                self._note_instances(one, control, read, name)
            self._note_image(one, value_key, frame)

    def coco_images(self, said: Iterable[Said]) -> Iterator[CocoImage]:
        """Yield the images for COCO."""
        for one in said:
            for value_key, frame, found in self._frames(one):
                name = self._note_image(one, value_key, frame) or frame.name
                name = name or self._stem(one, value_key)
                objects: list[CocoObject] = []
                for control, read in found:
                    objects += self._objects(one, control, read)
                    self._note_instances(one, control, read, name)
                yield CocoImage(
                    file_name=name,
                    height=frame.height,
                    width=frame.width,
                    objects=objects,
                    more={"task_id": one.task_id, "annotation_id": one.annotation_id},
                )

    def tables(self, facts: Mapping[str, Any]) -> None:
        """Write the tables and the summary."""
        self._table(
            INSTANCES,
            ("file", "instance", "label", "score", "region", "control", "task", "choices"),
            self.instance_rows,
        )
        if self.config.image_choices:
            header = ("task", "annotation", "control", "choices", "score")
            self._table(CHOICES, header, self.choice_rows)
        summary = {
            **facts,
            **self.request.canonical(),
            "images": self.images,
            "instances": self.objects,
            "left_out": self.notes[:_MOST_NAMED],
        }
        self.archive.writestr(SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")

    def _frames(
        self, one: Said
    ) -> Iterator[tuple[str, ImageFrame, list[tuple[Control, ReadInstances]]]]:
        """Yield the images of a task with what is outlined in them; note its choices."""
        self._note_choices(one)
        by_image: dict[str, list[Control]] = {}
        for control in self.config.controls:
            by_image.setdefault(control.value_key, []).append(control)
        for value_key, controls in by_image.items():
            try:
                frame = self.source.frame(one, controls)
                found = [
                    (control, from_regions(one.result, control, frame.height, frame.width))
                    for control in controls
                ]
            except (BadRequest, ImageError) as error:
                self.notes.append(f"{_subject(one)} is left out: {error.message}")
                continue
            for _, read in found:
                self.notes += (f"{_subject(one)}: {note}" for note in read.notes)
            yield value_key, frame, found

    def _note_image(self, one: Said, value_key: str, frame: ImageFrame) -> str | None:
        """Write the image's file where it is wanted; return its name in the archive."""
        self.images += 1
        if frame.file is None:
            return None
        name = f"images/{self._stem(one, value_key)}{frame.ending}"
        with self.archive.open(name, "w") as target, frame.file.path.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)
        return name

    def _note_instances(self, one: Said, control: Control, read: ReadInstances, name: str) -> None:
        self.objects += len(read.region_ids)
        scores = {region.get("id"): region.get("score") for region in one.result}
        for number, (label, region) in enumerate(
            zip(read.label_names, read.region_ids, strict=True), start=1
        ):
            own = [item for item in one.result if item.get("id") == region]
            chosen = sorted(
                choice
                for choices in self.config.object_choices(control)
                if not choices.is_label
                for choice in _chosen(own, choices)
            )
            self.instance_rows.append(
                (
                    name,
                    number,
                    label or control.label,
                    scores.get(region),
                    region,
                    control.name,
                    one.task_id,
                    "; ".join(chosen),
                )
            )

    def _note_choices(self, one: Said) -> None:
        for control in self.config.image_choices:
            try:
                chosen = read_chosen(one.result, control)
            except BackendError as error:
                self.notes.append(f"{_subject(one)}: {error.message}")
                continue
            if chosen:
                row = (one.task_id, one.annotation_id, control.name, "; ".join(sorted(chosen)))
                self.choice_rows.append((*row, one.score))

    def _objects(self, one: Said, control: Control, read: ReadInstances) -> Iterator[CocoObject]:
        scores = {region.get("id"): region.get("score") for region in one.result}
        categories = [self._category(control, name or control.label) for name in read.label_names]
        for index, found in enumerate(objects_in(read.labels, categories=categories)):
            score = scores.get(read.region_ids[index])
            yield CocoObject(
                category=found.category,
                segmentation=found.segmentation,
                area=found.area,
                box=found.box,
                score=score if isinstance(score, int | float) else None,
                more={"region_id": read.region_ids[index], "control": control.name},
            )

    def _category(self, control: Control, label: str) -> int:
        for known in self.categories:
            if (known.name, known.supercategory) == (label, control.name):
                return known.id
        number = len(self.categories) + 1
        self.categories.append(CocoCategory(id=number, name=label, supercategory=control.name))
        return number

    def _mask_name(self, one: Said, control: Control) -> str:
        folder = "masks"
        if len(self.config.controls) > 1:
            folder = f"masks/{safe_name(control.name) or 'control'}"
        return f"{folder}/{self._stem(one, control.value_key)}.tif"

    def _stem(self, one: Said, value_key: str) -> str:
        """Return what the files about an image are called: image and mask have the same name."""
        parts = [f"task-{one.task_id}"]
        if self.request.every and one.annotation_id is not None:
            parts.append(f"annotation-{one.annotation_id}")
        if len({control.value_key for control in self.config.controls}) > 1:
            parts.append(safe_name(value_key) or "image")
        return "-".join(parts)

    def _table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        self.archive.writestr(name, text.getvalue())


def _subject(one: Said) -> str:
    if one.annotation_id is None:
        return f"The prediction of task {one.task_id}"
    return f"Annotation {one.annotation_id} of task {one.task_id}"


def _chosen(regions: Sequence[Any], control: ChoicesControl) -> frozenset[str]:
    try:
        return read_chosen(regions, control)
    except BadRequest:
        return frozenset()  # the outline is good all the same
