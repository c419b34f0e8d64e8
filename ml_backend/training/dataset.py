"""What a session learns from and is judged by, built from the annotation ledger.

Rules, where several things could be meant:

- Skipped annotations never count; an annotation without a region is an image without objects.
- Of several annotations of a task the ground truth counts, else the newest (`Multiple.LATEST`), or
  each, all together weighing one (`Multiple.ALL`).
- What cannot be fetched or read is left out with a sentence, and the session goes on; not so
  where more than a fifth of the images cannot be fetched: then something is wrong that passes.
- Of very many tasks the ones annotated last count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ml_backend.domain import FetchedFile, Fetcher, Image, LabelStudioAccess, ProjectKey
from ml_backend.errors import BadRequest, ImageError, ImageFetchError
from ml_backend.labelstudio.annotation_choice import choose_annotations
from ml_backend.labelstudio.targets import Target, subject_of
from ml_backend.labelstudio.values import read_value
from ml_backend.learning import Annotation, LabelledTask, LearningOptions, Side
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.splits import Splits
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset_report import Notes, manifest_entry, report_of
from ml_backend.training.draft import (
    Draft,
    draft_of,
    require_usable_size,
    weighted,
)
from ml_backend.training.enough_objects import with_enough
from ml_backend.training.grouping import Groups, pixels_group
from ml_backend.training.object_sizes import object_sizes
from ml_backend.training.session_limits import SessionLimits, require_most_fetched
from ml_backend.training.unfinished import find_unfinished

_TASKS_AT_A_TIME = 20  # their regions may be many megabytes each


class Decoder(Protocol):
    """Turns a file into an image."""

    def __call__(
        self, file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None
    ) -> Image:
        """Return the decoded image.

        Raises:
            ImageDecodeError, ImageTooLarge
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The annotated images of a session, on the two sides of the split."""

    training: Sequence[AnnotatedImage]
    hold_out: Sequence[AnnotatedImage]
    manifest: Mapping[str, Any] = field(repr=False)  # JSON-able: "images", "task_hashes"
    report: Mapping[str, Any] = field(repr=False)  # JSON-able: what was left out, and why
    diameter: float | None  # median of the training objects, pixels, image frame; None without any
    diameter_spread: float  # largest over smallest median diameter of single images, 1 = equal
    test: Sequence[AnnotatedImage] = ()  # decides nothing: how good the result is, is told of it


@dataclass(frozen=True, kw_only=True)
class DatasetBuilder:
    """Builds datasets; the split it finds or makes is kept in `splits`."""

    fetcher: Fetcher
    decode: Decoder
    ledger: AnnotationLedger
    splits: Splits
    # how many objects the base network finds; None = nobody looks for half-finished images
    count: Callable[[Image], int] | None = None
    # the sha256 of the networks that made a prediction, by its id in Label Studio
    authors: Callable[[int], frozenset[str]] = lambda _: frozenset()
    # is given each image as it is made, to put its arrays where they take no memory
    keep: Callable[[AnnotatedImage], AnnotatedImage] = lambda image: image
    limits: SessionLimits = field(default_factory=SessionLimits)
    # is told (tasks read, tasks in all) before each task; may raise to stop
    on_task: Callable[[int, int], None] = lambda _done, _total: None

    def build(
        self,
        project: ProjectKey,
        target: Target,
        options: LearningOptions,
        access: LabelStudioAccess,
    ) -> Dataset:
        """Return the dataset of `project` for the controls of `target`, as of now.

        Raises:
            TrainingError: too many images cannot be fetched.
            StoreError: the records cannot be read.
            OSError: the disk is full or cannot be written.
            ModelError, EngineError: the base network cannot count objects.
        """
        notes = Notes()
        # read before the annotations: what changes in between is news to the next session
        task_hashes = self.ledger.task_hashes(project)
        notes.left_out += self.ledger.problems(project).values()
        newest = self.ledger.newest_tasks(project, most=self.limits.tasks)
        notes.remarks += self.limits.remarks(len(task_hashes))
        task_ids = sorted(set(newest) & task_hashes.keys())
        drafts = list(self._drafts(project, target, options, access, task_ids, notes))
        drafts = self._finished(drafts, options, notes)
        drafts = weighted(drafts)
        by_image = {_key(draft.image): draft for draft in drafts}
        images, said = self.limits.newest_of(self._sided(project, drafts, notes), newest)
        notes.remarks += said
        training, few = with_enough(
            [image for image in images if image.side is Side.TRAINING],
            options.parameters.min_train_masks,
            asked_by="model_min_train_masks",
        )
        notes.left_out += few
        hold_out = [
            self._with_authors(image, by_image[_key(image)])
            for image in images
            if image.side is Side.HOLD_OUT
        ]
        diameter, spread = object_sizes(training)
        return Dataset(
            training=training,
            hold_out=hold_out,
            manifest={
                # without those that another session may get, with those too old to be used
                "task_hashes": {
                    str(task_id): text
                    for task_id, text in task_hashes.items()
                    if task_id not in notes.not_fetched
                },
                "not_fetched": {
                    str(task_id): task_hashes[task_id] for task_id in sorted(notes.not_fetched)
                },
                "subject": subject_of(target, options),
                "controls": list(target.names),
                "images": [
                    manifest_entry(image, by_image[_key(image)]) for image in (*training, *hold_out)
                ],
            },
            report=report_of(training, hold_out, notes, diameter, spread),
            diameter=diameter,
            diameter_spread=spread,
        )

    def _drafts(
        self,
        project: ProjectKey,
        target: Target,
        options: LearningOptions,
        access: LabelStudioAccess,
        task_ids: Sequence[int],
        notes: Notes,
    ) -> Iterator[Draft]:
        for start in range(0, len(task_ids), _TASKS_AT_A_TIME):
            chunk = task_ids[start : start + _TASKS_AT_A_TIME]
            by_task: dict[int, list[Annotation]] = {}
            for annotation in self.ledger.counted(project, task_ids=chunk):
                by_task.setdefault(annotation.task_id, []).append(annotation)
            for index, task_id in enumerate(chunk, start=start):
                self.on_task(index, len(task_ids))
                chosen = choose_annotations(by_task.get(task_id, []), options.parameters.multiple)
                task = self.ledger.task(project, task_id)
                if not chosen:
                    continue  # gone since the hashes were read
                if task is None:
                    notes.left_out.append(
                        f"Task {task_id} is left out: what data it has is not known; set "
                        "LABEL_STUDIO_API_KEY, so that it can be asked for."
                    )
                    continue
                yield from self._of_task(task, chosen, target, options, access, notes)
                require_most_fetched(notes, len(task_ids))

    def _of_task(
        self,
        task: LabelledTask,
        annotations: Sequence[Annotation],
        target: Target,
        options: LearningOptions,
        access: LabelStudioAccess,
        notes: Notes,
    ) -> Iterator[Draft]:
        try:
            address = read_value(task.data, target.value_key)
            file = self.fetcher.fetch(address, task_id=task.task_id, access=access)
            image = self.decode(file, plane=target.plane, channels=target.channels)
            require_usable_size(image)
        except (BadRequest, ImageError) as error:
            notes.left_out.append(f"Task {task.task_id} is left out: {error.message}")
            if isinstance(error, ImageFetchError):
                notes.not_fetched.add(task.task_id)
            return
        pixels = pixels_group(image)
        for annotation in annotations:
            try:
                draft = draft_of(task, annotation, image, pixels, target, options)
            except BadRequest as error:
                notes.left_out.append(
                    f"Annotation {annotation.annotation_id} of task {task.task_id} is left out: "
                    f"{error.message}"
                )
                continue
            yield replace(
                draft,
                image=self.keep(draft.image),
                annotation=replace(annotation, result=()),  # it has been read, and may be long
            )

    def _finished(self, drafts: list[Draft], options: LearningOptions, notes: Notes) -> list[Draft]:
        """Name the tasks that look half-finished, and leave them out where that is wanted."""
        if self.count is None:
            return drafts
        unmarked = [draft for draft in drafts if not draft.is_marked]
        unfinished = find_unfinished(
            [draft.image for draft in unmarked],
            [draft.outlined for draft in unmarked],
            self.count,
        )
        leave_out = options.parameters.leave_out_unfinished
        for one in unfinished:
            facts = {"task": one.task_id, "objects": one.objects, "base_finds": one.found}
            notes.unfinished.append(facts | {"left_out": leave_out})
            (notes.left_out if leave_out else notes.remarks).append(one.sentence)
        if not leave_out:
            return drafts
        named = {one.annotation_ids for one in unfinished}
        return [draft for draft in drafts if draft.image.annotation_ids not in named]

    def _sided(
        self, project: ProjectKey, drafts: Sequence[Draft], notes: Notes
    ) -> list[AnnotatedImage]:
        """Return the images with their sides, which are settled now where they were not."""
        groups = Groups.of((draft.image.group, draft.pixels) for draft in drafts)
        sides = self.splits.decide(project, groups.sides(self.splits.sides(project)))
        images = []
        for draft in drafts:
            side = sides[draft.image.group]
            if side is Side.TRAINING and sides[draft.pixels] is Side.HOLD_OUT:
                notes.left_out.append(
                    f"Task {draft.image.task_id} is left out: the same picture is held out."
                )
                continue
            images.append(replace(draft.image, side=side))
        return images

    def _with_authors(self, image: AnnotatedImage, draft: Draft) -> AnnotatedImage:
        shown = draft.annotation.parent_prediction
        if not image.untouched or shown is None:
            return image
        return replace(image, accepted_from=self.authors(shown))


def _key(image: AnnotatedImage) -> tuple[int, int]:
    return image.task_id, image.annotation_ids[0]
