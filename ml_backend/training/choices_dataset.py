"""What people chose for images, with each image's embedding: what classifiers learn from.

The rules are those of `training.dataset`: skipped annotations never count, of several annotations
of a task the ground truth counts, else the newest, and what cannot be fetched or read is left out
with a sentence. Choices that the label config no longer has are left out, too. Unlike outlines, a
choice that somebody accepted as it was predicted counts on both sides: a glance judges it, and
without such images only those would be compared that the served classifier gets wrong. A multiple
choice that is left empty beside other choices says "none of them", once somebody has used it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Fetcher, Image, LabelStudioAccess, ProjectKey
from ml_backend.errors import BadRequest, ImageError, ImageFetchError
from ml_backend.labelstudio.choices import read_chosen
from ml_backend.labelstudio.targets import ChoicesTarget, subject_of
from ml_backend.labelstudio.values import read_value
from ml_backend.learning import Annotation, LabelledTask, LearningOptions, Side
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.splits import Splits
from ml_backend.training.dataset import Decoder
from ml_backend.training.dataset_report import Notes, shortened
from ml_backend.training.draft import choose_annotations
from ml_backend.training.grouping import Groups, group_of, pixels_group
from ml_backend.training.session_limits import require_most_fetched

Chosen = Mapping[str, frozenset[str]]
"""Control name -> what was chosen; a control that was left alone is not in it."""

_TASKS_AT_A_TIME = 200


@dataclass(frozen=True, kw_only=True)
class ChosenImage:
    """An image and what one annotation chose for it."""

    task_id: int
    annotation_id: int
    content_hash: str  # of the annotation
    image_sha256: str
    group: str
    pixels: str  # the group that it would be without `model_group`
    side: Side
    chosen: Chosen
    embedding: npt.NDArray[np.float32] = field(repr=False)  # (D,)


@dataclass(frozen=True, kw_only=True)
class ChoicesDataset:
    """The labelled images of a session, on the two sides of the split."""

    training: Sequence[ChosenImage]
    hold_out: Sequence[ChosenImage]
    manifest: Mapping[str, Any] = field(repr=False)
    report: Mapping[str, Any] = field(repr=False)


Embed = Callable[[str, Callable[[], Image]], npt.NDArray[np.float32]]
"""From the file's sha256 and what decodes it to the embedding, (D,)."""


@dataclass(frozen=True, kw_only=True)
class ChoicesDatasetBuilder:
    """Builds datasets; the split it finds or makes is kept in `splits`."""

    fetcher: Fetcher
    decode: Decoder
    embed: Embed
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
                    found += self._of_task(task, chosen, target, options, access, notes)
                    require_most_fetched(notes, len(task_ids))
        images = self._sided(project, _with_none(found, target), notes)
        return ChoicesDataset(
            training=[image for image in images if image.side is Side.TRAINING],
            hold_out=[image for image in images if image.side is Side.HOLD_OUT],
            manifest=_manifest(images, task_hashes, target, options, notes),
            report=_report(images, target, notes),
        )

    def _of_task(
        self,
        task: LabelledTask,
        annotations: Sequence[Annotation],
        target: ChoicesTarget,
        options: LearningOptions,
        access: LabelStudioAccess,
        notes: Notes,
    ) -> list[ChosenImage]:
        readable = []
        for annotation in annotations:
            try:
                chosen = _chosen_of(annotation, target, notes)
            except BadRequest as error:
                notes.left_out.append(
                    f"Annotation {annotation.annotation_id} of task {task.task_id} is left out: "
                    f"{error.message}"
                )
                continue
            if chosen:
                readable.append((annotation, chosen))
        if not readable:
            return []
        try:
            address = read_value(task.data, target.value_key)
            file = self.fetcher.fetch(address, task_id=task.task_id, access=access)
            image = self.decode(file, plane=target.plane, channels=target.channels)
            embedding = self.embed(file.sha256, lambda: image)
        except (BadRequest, ImageError) as error:
            notes.left_out.append(f"Task {task.task_id} is left out: {error.message}")
            if isinstance(error, ImageFetchError):
                notes.not_fetched.add(task.task_id)
            return []
        pixels = pixels_group(image)
        return [
            ChosenImage(
                task_id=task.task_id,
                annotation_id=annotation.annotation_id,
                content_hash=annotation.content_hash,
                image_sha256=file.sha256,
                group=group_of(task, pixels, options.group_field),
                pixels=pixels,
                side=Side.TRAINING,
                chosen=chosen,
                embedding=embedding,
            )
            for annotation, chosen in readable
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


def _chosen_of(annotation: Annotation, target: ChoicesTarget, notes: Notes) -> Chosen:
    """Return what an annotation chose, without what the label config no longer has.

    Raises:
        BadRequest
    """
    found: dict[str, frozenset[str]] = {}
    for control in target.controls:
        chosen = read_chosen(annotation.result, control)
        gone = chosen - set(control.choices)
        if gone:
            names = ", ".join(sorted(gone))
            notes.left_out.append(
                f"Annotation {annotation.annotation_id} of task {annotation.task_id}: "
                f"{control.name} no longer has the choice {names}; it does not count."
            )
        if chosen - gone:
            found[control.name] = chosen - gone
    return found


def _manifest(
    images: Sequence[ChosenImage],
    task_hashes: Mapping[int, str],
    target: ChoicesTarget,
    options: LearningOptions,
    notes: Notes,
) -> dict[str, Any]:
    return {
        "task_hashes": {
            str(task_id): text
            for task_id, text in task_hashes.items()
            if task_id not in notes.not_fetched
        },
        "not_fetched": {str(task): task_hashes[task] for task in sorted(notes.not_fetched)},
        "subject": subject_of(target, options),
        "controls": list(target.names),
        "images": [
            {
                "task": image.task_id,
                "annotations": [image.annotation_id],
                "content_hash": image.content_hash,
                "image_sha256": image.image_sha256,
                "group": image.group,
                "side": image.side.value,
                "chosen": {name: sorted(chosen) for name, chosen in image.chosen.items()},
            }
            for image in images
        ],
    }


def _report(images: Sequence[ChosenImage], target: ChoicesTarget, notes: Notes) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    for control in target.controls:
        of_choice = {
            choice: sum(choice in image.chosen.get(control.name, ()) for image in images)
            for choice in control.choices
        }
        counts[control.name] = {choice: count for choice, count in of_choice.items() if count}
    return {
        "images": {side.value: sum(image.side is side for image in images) for side in Side},
        "chosen": counts,
        "left_out": shortened(notes.left_out),
        "remarks": shortened(notes.remarks),
    }
