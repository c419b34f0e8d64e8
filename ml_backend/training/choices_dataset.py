"""What people chose for images, with each image's embedding: what classifiers learn from.

The rules are those of `training.dataset`: skipped annotations never count, of several annotations
of a task the ground truth counts, else the newest, and what cannot be fetched or read is left out
with a sentence. Choices that the label config no longer has are left out, too. Unlike outlines, a
choice that somebody accepted as it was predicted counts on both sides: a glance judges it, and
without such images only those would be compared that the served classifier gets wrong. A multiple
choice that is left empty beside other choices says "none of them", once somebody has used it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ml_backend.domain import (
    Fetcher,
    Image,
    LabelStudioAccess,
    Pixels,
    ProjectKey,
)
from ml_backend.errors import BadRequest, ImageError, ImageFetchError
from ml_backend.imaging.cutouts import cut_out
from ml_backend.labelstudio.annotation_choice import choose_annotations
from ml_backend.labelstudio.targets import ChoicesTarget
from ml_backend.labelstudio.values import read_value
from ml_backend.learning import Annotation, LabelledTask, LearningOptions, Side
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.splits import Splits
from ml_backend.training.chosen import (
    Chosen,
    chosen_for_image,
    chosen_for_objects,
    outlines_anything,
)
from ml_backend.training.chosen_images import (
    ChoicesDataset,
    ChosenImage,
    manifest_of,
    report_of,
)
from ml_backend.training.dataset import Decoder
from ml_backend.training.dataset_report import Notes
from ml_backend.training.grouping import Groups, group_of, pixels_group
from ml_backend.training.session_limits import require_most_fetched

FloatArray = npt.NDArray[np.float32]
_TASKS_AT_A_TIME = 200


class Embeds(Protocol):
    """Turns images and single objects into embeddings."""

    def one(self, sha256: str, decode: Callable[[], Image]) -> FloatArray:
        """Return the embedding (D,) of an image, by the hash of its file."""
        ...

    def objects(self, task_id: int, cutouts: Mapping[int, Pixels]) -> FloatArray:
        """Return the embeddings (N, D) of objects by their numbers, cut out of a task's image."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Subject:
    target: ChoicesTarget
    options: LearningOptions
    access: LabelStudioAccess


@dataclass(frozen=True, kw_only=True)
class _Picture:
    image: Image
    sha256: str  # of its file
    pixels: str  # the group that it would be without `model_group`
    group: str


@dataclass(frozen=True, kw_only=True)
class ChoicesDatasetBuilder:
    """Builds datasets; the split it finds or makes is kept in `splits`."""

    fetcher: Fetcher
    decode: Decoder
    embed: Embeds
    ledger: AnnotationLedger
    splits: Splits
    # is told (tasks read, tasks in all) before each task; may raise to stop
    on_task: Callable[[int, int], None] = lambda _done, _total: None

    def build(
        self,
        project: ProjectKey,
        target: ChoicesTarget,
        options: LearningOptions,
        access: LabelStudioAccess,
    ) -> ChoicesDataset:
        """Return the dataset of `project` for the controls of `target`, as of now.

        Raises:
            TrainingError: too many images cannot be fetched.
            StoreError: the records cannot be read.
            ModelError, EngineError: the embedder cannot be run.
        """
        notes = Notes()
        subject = _Subject(target=target, options=options, access=access)
        # read before the annotations: what changes in between is news to the next session
        task_hashes = self.ledger.task_hashes(project)
        notes.left_out += self.ledger.problems(project).values()
        found: list[ChosenImage] = []
        task_ids = sorted(task_hashes)
        for start in range(0, len(task_ids), _TASKS_AT_A_TIME):
            chunk = task_ids[start : start + _TASKS_AT_A_TIME]
            by_task: dict[int, list[Annotation]] = {}
            for annotation in self.ledger.counted(project, task_ids=chunk):
                by_task.setdefault(annotation.task_id, []).append(annotation)
            for index, task_id in enumerate(chunk, start=start):
                self.on_task(index, len(task_ids))
                chosen = choose_annotations(by_task.get(task_id, []), options.parameters.multiple)
                task = self.ledger.task(project, task_id) if chosen else None
                if task is not None:
                    found += self._of_task(task, chosen, subject, notes)
                    require_most_fetched(notes, len(task_ids))
        images = self._sided(project, _with_none(found, target), notes)
        return ChoicesDataset(
            training=[image for image in images if image.side is Side.TRAINING],
            hold_out=[image for image in images if image.side is Side.HOLD_OUT],
            manifest=manifest_of(images, task_hashes, target, options, notes),
            report=report_of(images, target, notes),
        )

    def _of_task(
        self,
        task: LabelledTask,
        annotations: Sequence[Annotation],
        subject: _Subject,
        notes: Notes,
    ) -> list[ChosenImage]:
        target = subject.target
        try:
            found = []
            for annotation in self._readable(annotations, target, notes):
                # fetched and decoded only where there is something to learn
                picture = self._picture(task, subject)
                found += self._of_annotation(task, annotation, picture, subject, notes)
        except (BadRequest, ImageError) as error:
            notes.left_out.append(f"Task {task.task_id} is left out: {error.message}")
            if isinstance(error, ImageFetchError):
                notes.not_fetched.add(task.task_id)
            return []
        return found

    def _readable(
        self, annotations: Sequence[Annotation], target: ChoicesTarget, notes: Notes
    ) -> Iterator[Annotation]:
        """Yield the annotations that say something of the target's controls."""
        for annotation in annotations:
            if target.shape is not None:
                if outlines_anything(annotation, target.shape):
                    yield annotation
                continue
            try:
                found = chosen_for_image(annotation, target.controls)
            except BadRequest as error:
                notes.left_out.append(_left_out(annotation, error))
                continue
            notes.left_out += found.gone
            if found.chosen:
                yield annotation

    def _picture(self, task: LabelledTask, subject: _Subject) -> _Picture:
        """Return the image of a task.

        Raises:
            BadRequest, ImageError
        """
        target = subject.target
        address = read_value(task.data, target.value_key)
        file = self.fetcher.fetch(address, task_id=task.task_id, access=subject.access)
        image = self.decode(file, plane=target.plane, channels=target.channels)
        pixels = pixels_group(image)
        group = group_of(task, pixels, subject.options.group_field)
        return _Picture(image=image, sha256=file.sha256, pixels=pixels, group=group)

    def _of_annotation(
        self,
        task: LabelledTask,
        annotation: Annotation,
        picture: _Picture,
        subject: _Subject,
        notes: Notes,
    ) -> list[ChosenImage]:
        """Return the image, or its single objects, with what an annotation chose for them.

        Raises:
            ImageError
        """
        target = subject.target
        if target.shape is None:
            embedding = self.embed.one(picture.sha256, lambda: picture.image)
            chosen = {0: chosen_for_image(annotation, target.controls).chosen}
            embeddings = {0: embedding}
        else:
            try:
                objects = chosen_for_objects(
                    annotation, target.shape, target.controls, picture.image
                )
            except BadRequest as error:
                notes.left_out.append(_left_out(annotation, error))
                return []
            chosen = dict(objects.by_number)
            cutouts = {
                number: cutout
                for number, cutout in enumerate(
                    cut_out(picture.image.pixels, objects.labels), start=1
                )
                if number in chosen
            }
            vectors = self.embed.objects(task.task_id, cutouts)
            embeddings = dict(zip(cutouts, vectors, strict=True))
        return [
            ChosenImage(
                task_id=task.task_id,
                annotation_id=annotation.annotation_id,
                content_hash=annotation.content_hash,
                image_sha256=picture.sha256,
                group=picture.group,
                pixels=picture.pixels,
                side=Side.TRAINING,
                chosen=chosen[number],
                embedding=embedding,
                number=number,
            )
            for number, embedding in embeddings.items()
        ]

    def _sided(
        self, project: ProjectKey, found: Sequence[ChosenImage], notes: Notes
    ) -> list[ChosenImage]:
        groups = Groups.of((image.group, image.pixels) for image in found)
        sides = self.splits.decide(project, groups.sides(self.splits.sides(project)))
        images = []
        for image in found:
            side = sides[image.group]
            if side is Side.TRAINING and sides[image.pixels] is Side.HOLD_OUT:
                notes.left_out.append(
                    f"Task {image.task_id} is left out: the same picture is held out."
                )
                continue
            images.append(replace(image, side=side))
        return images


def _with_none(found: Sequence[ChosenImage], target: ChoicesTarget) -> list[ChosenImage]:
    """Return the images with "none of them" where a multiple choice was left empty.

    Whoever chose something else for an image saw that control, too. One that nobody has ever used
    says nothing.
    """
    used = {
        control.name
        for control in target.controls
        if control.multiple and any(control.name in image.chosen for image in found)
    }
    nothing: Chosen = dict.fromkeys(used, frozenset())
    return [replace(image, chosen={**nothing, **image.chosen}) for image in found]


def _left_out(annotation: Annotation, error: BadRequest) -> str:
    return (
        f"Annotation {annotation.annotation_id} of task {annotation.task_id} is left out: "
        f"{error.message}"
    )
