"""How much one session takes, and how much of it may be missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ml_backend.errors import TrainingError
from ml_backend.learning import Side
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset_report import Notes

NOT_FETCHED_SHARE = 0.2  # of the tasks; more images than that are not gone, their server is away


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    """How many tasks one session takes: its hours and its share of the disk have an end."""

    training: int = 2000
    hold_out: int = 400  # each is scored many times

    @property
    def tasks(self) -> int:
        """Return how many tasks are looked at."""
        return self.training + self.hold_out

    def remarks(self, tasks: int) -> list[str]:
        """Return what is to be said where so many tasks are annotated."""
        if tasks <= self.tasks:
            return []
        return [
            f"Of the {tasks} annotated tasks the {self.tasks} annotated last are looked at; a "
            "session takes no more."
        ]

    def newest_of(
        self, images: Sequence[AnnotatedImage], newest: Sequence[int]
    ) -> tuple[list[AnnotatedImage], list[str]]:
        """Return the images of the tasks that were annotated last, so many of each side.

        Args:
            images: of both sides.
            newest: their tasks, the one that was annotated last first.

        Returns:
            Those images, in the order of `images`, and a sentence for each side that is too large.
        """
        ages = {task_id: age for age, task_id in enumerate(newest)}
        used: dict[Side, set[int]] = {}
        remarks = []
        for side, most, name in (
            (Side.TRAINING, self.training, "for training"),
            (Side.HOLD_OUT, self.hold_out, "held out"),
        ):
            tasks = {image.task_id for image in images if image.side is side}
            used[side] = set(sorted(tasks, key=ages.__getitem__)[:most])
            if len(tasks) > most:
                remarks.append(
                    f"Of the {len(tasks)} tasks that are {name} the {most} annotated last are "
                    "used; a session takes no more."
                )
        return [image for image in images if image.task_id in used[image.side]], remarks


def require_most_fetched(notes: Notes, tasks: int) -> None:
    """Check that not too many of the images of so many tasks are missing, as far as is known.

    Raises:
        TrainingError
    """
    missing = len(notes.not_fetched)
    if missing <= 1 or missing <= NOT_FETCHED_SHARE * tasks:
        return
    raise TrainingError(
        f"At least {missing} of the images of {tasks} tasks could not be fetched, too many to go "
        f"on without them ({notes.left_out[-1].rstrip('.')}); mend that, or delete the tasks whose "
        "images are gone for good, and resume the session."
    )
