"""One attempt at a fine-tuning: from images to the best weights, or to a stop on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import structlog
import torch

from ml_backend.domain import Component
from ml_backend.errors import TrainingError
from ml_backend.learning import EpochPoint
from ml_backend.recipes import Recipe
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.crops import Batch, CropLoader, validation_crops
from ml_backend.training.fine_tuned import FineTuned
from ml_backend.training.learned_weights import LearnedWeights
from ml_backend.training.precision import training_precision
from ml_backend.training.prepared_image import Preparation, PreparedImage, prepare
from ml_backend.training.progress import Progress
from ml_backend.training.schedule import learning_rate_factor, steps_within
from ml_backend.training.stepper import Stepper
from ml_backend.training.stopwatch import Stopwatch
from ml_backend.training.training_checkpoint import (
    load_checkpoint,
    read_checkpoint_state,
    save_checkpoint,
)
from ml_backend.training.training_state import TrainingState

log = structlog.get_logger(__name__)

# a weights file and the diameter that it is served at; AP at 0.5, 0.75 and 0.9
Score = Callable[[Path, float | None], tuple[float, float, float]]
# the same; precision, recall, F1 and IoU of pixels on the test set
Pixels = Callable[[Path, float | None], tuple[float, float, float, float]]

BEST: Final = "best.safetensors"
SCORED: Final = "scored.safetensors"
CHECKPOINT: Final = "checkpoint.safetensors"
MOST_VALIDATION_CROPS: Final = 16
FIRST_PACE: Final = 10  # steps after which the pace is known well enough to plan by it
CHECKPOINT_SHARE: Final = 0.05  # of the time may go into writing checkpoints
SECONDS_PER_MINUTE: Final = 60.0


class _Stopped(Exception):
    """Someone asked for it while images were prepared."""


class FineTuning:
    """One attempt; `run` is called once."""

    def __init__(
        self,
        learned: LearnedWeights,
        recipe: Recipe,
        *,
        diameter: float | None,
        folder: Path,
        device: torch.device,
        on_epoch: Callable[[EpochPoint], None],
        on_step: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        score: Score | None,
        pixels: Pixels | None,
        precision: str | None,
        clock: Callable[[], float],
    ) -> None:
        """Keep the collaborators, which `segmentation.fine_tune` describes.

        `diameter` is what the network is served at: image pixels, None = estimated per image.
        """
        self._learned, self._recipe, self._diameter = learned, recipe, diameter
        self._folder, self._device = folder, device
        self._on_epoch, self._on_step = on_epoch, on_step
        self._should_stop, self._score, self._precision = should_stop, score, precision
        self._pixels = pixels
        self._clock, self._stopwatch = clock, Stopwatch(clock)
        self.state = TrainingState(steps=recipe.steps, precision="")
        self._fingerprint = ""  # of the training that checkpoints belong to
        self._steps_before = 0  # in earlier attempts
        self._training_s = 0.0  # of this attempt, in steps alone
        self._saved_at, self._save_s = clock(), 0.0

    def run(
        self,
        training: Sequence[AnnotatedImage],
        hold_out: Sequence[AnnotatedImage],
        how: Preparation,
    ) -> FineTuned:
        """Prepare the images and train to the planned end, an early one, or a wish to stop."""
        try:
            stopped = self._train(self._prepare(training, how), self._prepare(hold_out, how))
        except _Stopped:
            stopped = True
        if not (self._folder / BEST).is_file():
            self._learned.write(self._folder / BEST)  # none have been the best yet
        return FineTuned(
            weights=self._folder / BEST,
            checkpoint=self._folder / CHECKPOINT,
            epochs=-(-self.state.step // self._recipe.steps_per_epoch),
            steps=self.state.step,
            stopped=stopped,
            early=self.state.early,
            diameter=self._diameter,
            notes=tuple(self.state.notes),
        )

    def _prepare(self, images: Sequence[AnnotatedImage], how: Preparation) -> list[PreparedImage]:
        """Return what can be used of `images`, computing flows where it was not done before."""
        found = []
        for annotated in images:
            if self._should_stop():
                raise _Stopped
            self._tell("preparing")
            one = prepare(annotated, how)
            if one is None:
                self.state.note(f"{annotated.title} was left out: its image is blank.")
            else:
                found.append(one)
        return found

    def _train(self, training: Sequence[PreparedImage], hold_out: Sequence[PreparedImage]) -> bool:
        """Train; return whether someone asked to stop."""
        if not any(len(image.centres) for image in training):
            raise TrainingError(
                "No training image holds an object that is large enough to learn from; annotate "
                "more, or look at what the session's report says was left out."
            )
        recipe = self._recipe
        self._learned.network.to(self._device)
        stepper = self._resume(_fingerprint(recipe, self._learned.component, training))
        count = max(2, min(MOST_VALIDATION_CROPS, recipe.n_samples // 4))
        validation = validation_crops(hold_out, recipe, count)
        threads = 1 if self._device.type == "cpu" else 3
        self._stopwatch.start(self.state.seconds)
        with CropLoader(
            training,
            recipe,
            first_step=self.state.step,
            threads=threads,
            pin=self._device.type == "cuda",
        ) as loader:
            for batch in loader:
                if self.state.ended:
                    break
                if self._should_stop():
                    self._save(stepper)
                    return True
                self._step(stepper, batch)
                if self.state.step % recipe.steps_per_epoch == 0 or self.state.ended:
                    self._end_epoch(stepper, validation)
        return False

    def _resume(self, fingerprint: str) -> Stepper:
        checkpoint = self._folder / CHECKPOINT
        kept = read_checkpoint_state(checkpoint) or {}
        is_ours = kept.get("fingerprint") == fingerprint
        precision = self._precision
        if precision is None and is_ours and kept["device"] == self._device.type:
            precision = kept["training"]["precision"]  # another would give other numbers
        precision = precision or training_precision(self._device)
        recipe = self._recipe
        stepper = Stepper(
            self._learned.network,
            recipe,
            device=self._device,
            precision=precision,
            piece=recipe.batch_size,
        )
        notes = self.state.notes
        self._fingerprint = fingerprint
        if is_ours:
            kept = load_checkpoint(checkpoint, self._learned.network, stepper.optimiser)
            stepper.restore(kept["stepper"])
            self.state = TrainingState.from_json(kept["training"])
            self.state.notes = list(dict.fromkeys([*notes, *self.state.notes]))
        else:
            (self._folder / BEST).unlink(missing_ok=True)
        self.state.precision = precision
        self._steps_before = self.state.step
        return stepper

    def _step(self, stepper: Stepper, batch: Batch) -> None:
        state, recipe = self.state, self._recipe
        rate = recipe.learning_rate * learning_rate_factor(state.step, state.steps)
        began, piece = self._clock(), stepper.piece
        loss = stepper.step(batch, rate)
        self._training_s += self._clock() - began
        if stepper.piece < piece:
            state.note(
                f"The memory did not suffice for {min(piece, len(batch.images))} crops at once; it "
                f"went on with {stepper.piece} at a time."
            )
        state.step += 1
        state.losses += loss
        state.losses_of += 1
        state.learning_rate = rate
        state.seconds = self._stopwatch.seconds
        if recipe.max_minutes is not None:
            if state.step - self._steps_before == FIRST_PACE:
                self._plan()
            if state.seconds >= recipe.max_minutes * SECONDS_PER_MINUTE:
                state.steps = state.step  # the pace fell; what is learned so far is kept
        self._tell("training")

    def _end_epoch(self, stepper: Stepper, validation: Batch | None) -> None:
        state, recipe = self.state, self._recipe
        loss = state.losses / max(1, state.losses_of)
        epoch = -(-state.step // recipe.steps_per_epoch)
        validation_loss = stepper.loss_of(validation) if validation is not None else None
        precision = pixels = None
        if epoch % recipe.validation_interval == 0 or state.ended:
            precision, pixels = self._judge(validation_loss)
        state.losses, state.losses_of = 0.0, 0
        state.seconds = self._stopwatch.seconds
        if recipe.max_minutes is not None and not state.ended:
            self._plan()
        now = self._clock()
        is_due = now - self._saved_at > self._save_s / CHECKPOINT_SHARE
        if is_due or state.ended or precision is not None or pixels is not None:
            self._save(stepper)
        self._on_epoch(
            EpochPoint(
                epoch=epoch,
                step=state.step,
                loss=loss,
                learning_rate=state.learning_rate,
                validation_loss=validation_loss,
                precision=precision,
                pixels=pixels,
                seconds=state.seconds,
            )
        )

    def _judge(
        self, validation_loss: float | None
    ) -> tuple[tuple[float, float, float] | None, tuple[float, float, float, float] | None]:
        """Score the weights, keep them if they are the best so far; say when it is enough."""
        precision = pixels = None
        if self._score is not None or self._pixels is not None:
            self._tell("scoring")
            scored = self._folder / SCORED
            self._learned.write(scored)
            with self._stopwatch.paused():
                if self._score is not None:
                    precision = self._score(scored, self._diameter)
                if self._pixels is not None:  # decides nothing
                    pixels = self._pixels(scored, self._diameter)
            scored.unlink(missing_ok=True)
        if self.state.judge(precision, validation_loss):
            self._learned.write(self._folder / BEST)
        elif self.state.without_rise >= self._recipe.patience:
            self.state.early = True
        return precision, pixels

    def _plan(self) -> None:
        """Shorten the training if it would not end within its budget; the schedule follows."""
        state = self.state
        budget = (self._recipe.max_minutes or 0.0) * SECONDS_PER_MINUTE
        done = max(1, state.step - self._steps_before)
        steps = steps_within(
            state.steps,
            state.step,
            seconds=state.seconds,
            pace_s=self._stopwatch.attempt_s / done,
            budget_s=budget,
        )
        if steps < state.steps:
            log.info("training shortened to its budget", steps=steps, planned=state.steps)
            state.steps = steps

    def _save(self, stepper: Stepper) -> None:
        began = self._clock()
        save_checkpoint(
            self._folder / CHECKPOINT,
            self._learned.network,
            stepper.optimiser,
            {
                "fingerprint": self._fingerprint,
                "device": self._device.type,
                "training": self.state.to_json(),
                "stepper": stepper.state(),
            },
        )
        self._saved_at = self._clock()
        self._save_s = self._saved_at - began

    def _tell(self, phase: str) -> None:
        state, recipe = self.state, self._recipe
        done = state.step - self._steps_before
        pace = self._stopwatch.elapsed_s / done if done else None  # scores included
        self._on_step(
            Progress(
                phase=phase,
                epoch=-(-state.step // recipe.steps_per_epoch),
                epochs=-(-state.steps // recipe.steps_per_epoch),
                step=state.step,
                steps=state.steps,
                seconds=self._stopwatch.seconds,
                eta_s=pace * (state.steps - state.step) if pace is not None else None,
                loss=state.losses / state.losses_of if state.losses_of else None,
                samples_per_s=recipe.batch_size * done / self._training_s
                if self._training_s
                else None,
            )
        )


def _fingerprint(recipe: Recipe, component: Component, training: Sequence[PreparedImage]) -> str:
    # a budget may be raised when a session is resumed; all else makes it another training
    facts = [
        asdict(replace(recipe, max_minutes=None)),
        component.sha256,
        [(image.key, image.weight) for image in training],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
