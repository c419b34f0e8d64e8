"""One training session from its dataset to a published version, at any moment to be taken up again.

Whatever it has done lies in its folder (dataset, checkpoints) or in the records (version's name,
version, activation), and is found there by the next try: nothing is done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ml_backend.domain import Component
from ml_backend.errors import ModelError
from ml_backend.learning import EpochPoint, Promotion, Session, Version
from ml_backend.model_files.version_folders import Publisher
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.collapse import CollapseWatch
from ml_backend.training.dataset import Dataset
from ml_backend.training.fine_tuned import FineTuned
from ml_backend.training.gate import Verdict
from ml_backend.training.interruption import Interruption
from ml_backend.training.outcome import Outcome, failed, stopped
from ml_backend.training.pixel_scores import PixelScores
from ml_backend.training.progress import Progress
from ml_backend.training.scoring import ImageScore
from ml_backend.training.session_facts import (
    data_of,
    facts_of_test,
    pixels_of,
    precision_of,
    require_something_to_learn,
)
from ml_backend.training.session_log import Phase, SessionLog
from ml_backend.training.version_making import Made, VersionMaker, VersionRecords

Scores = Sequence[ImageScore]


class Train(Protocol):
    """Fine-tunes a network, from the beginning or from the checkpoint in `folder`."""

    def __call__(
        self,
        start: Component,
        dataset: Dataset,
        *,
        folder: Path,
        on_epoch: Callable[[EpochPoint], None],
        on_step: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        score: Callable[[Path, float | None], tuple[float, float, float]] | None,
        pixels: Callable[[Path, float | None], PixelScores] | None,
    ) -> FineTuned:
        """Return the network; `should_stop` is asked before each batch.

        `score` and `pixels` take weights and the diameter that they would be served at; the first
        scores on the hold-out, the other on the test set.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SessionTools:
    """What a session works with."""

    dataset: Callable[[], Dataset]  # the frozen one, or a new one that is frozen now
    base: Component  # what the controls ask for
    start: Component  # what the training starts from: the base, or what was served
    served: Callable[[], Sequence[Component]]  # now, for the session's controls
    train: Train
    score: Callable[[Component, Sequence[AnnotatedImage]], Scores]
    component_of: Callable[[Path, Component, float | None], Component]  # of weights in training
    judge: Callable[[Scores, Scores, Scores, Promotion], Verdict]  # candidate, active, base
    promotion: Promotion
    publisher: Publisher
    versions: VersionRecords
    facts: Mapping[str, Any]  # for the version's manifest: libraries, parameters
    pictures: Callable[[], Mapping[str, bytes]] = dict  # for the version: PNG by file name
    clock: Callable[[], float] = time.time


class SessionRun:
    """Runs one session in this process; `run` is called once."""

    def __init__(
        self,
        session: Session,
        tools: SessionTools,
        *,
        journal: SessionLog,
        interruption: Interruption,
        folder: Path,
    ) -> None:
        """Keep the collaborators; `folder` is the session's own and outlives this process."""
        self._session = session
        self._own = tools
        self._journal = journal
        self._interruption = interruption
        self._folder = folder
        self._maker = VersionMaker(
            session=session,
            publisher=tools.publisher,
            versions=tools.versions,
            journal=journal,
            clock=tools.clock,
        )
        self._collapse: str | None = None  # why the training was ended early
        self._done = 0.0  # part of the training

    def run(self) -> Outcome:
        """Return what came of it, for the records; see `outcome.guarded` for what it raises."""
        made = self._maker.made_before()
        if made is not None:
            return self._maker.conclude(made)
        self._journal.phase(Phase.DATASET)
        dataset = self._own.dataset()
        self._journal.keep_manifest(dataset.manifest)
        self._journal.tell(**dataset.report)
        require_something_to_learn(dataset)
        self._interruption.check()

        self._journal.phase(Phase.BASELINE)
        base_scores = self._own.score(self._own.base, dataset.hold_out)
        self._journal.phase(Phase.TRAINING)
        trained = self._train(dataset, base_scores)
        if self._collapse is not None:
            return failed(self._collapse)
        self._interruption.check()
        if trained.stopped:
            return stopped()
        self._journal.tell(training_notes=list(trained.notes))

        self._journal.phase(Phase.SCORING)
        candidate = self._own.component_of(trained.weights, self._own.start, trained.diameter)
        candidate_scores = self._own.score(candidate, dataset.hold_out)
        verdict = self._own.judge(
            candidate_scores,
            self._active_scores(dataset, base_scores),
            base_scores,
            self._own.promotion,
        )
        self._journal.tell(gate=dict(verdict.numbers), verdict=verdict.sentence)
        verdict = self._tested(candidate, verdict, dataset)
        with self._interruption.shielded():  # short, and whole the next time if it is killed
            self._journal.phase(Phase.PUBLISHING)
            return self._maker.conclude(self._publish(trained, verdict, dataset))

    def _train(self, dataset: Dataset, base_scores: Scores) -> FineTuned:
        watch = CollapseWatch(
            base_found=sum(score.found for score in base_scores),
            outlined=sum(score.objects for score in base_scores),
        )

        def score(weights: Path, diameter: float | None) -> tuple[float, float, float]:
            component = self._own.component_of(weights, self._own.start, diameter)
            scores = self._own.score(component, dataset.hold_out)
            found = sum(one.found for one in scores)
            self._collapse = watch.look(found, self._done) or self._collapse
            return precision_of(scores)

        def pixels(weights: Path, diameter: float | None) -> PixelScores:
            component = self._own.component_of(weights, self._own.start, diameter)
            return pixels_of(self._own.score(component, dataset.test))

        with self._interruption.shielded():  # the loop asks before each batch
            return self._own.train(
                self._own.start,
                dataset,
                folder=self._folder,
                on_epoch=self._journal.point,
                on_step=self._step,
                should_stop=self._is_to_stop,
                score=score if dataset.hold_out else None,
                pixels=pixels if dataset.test else None,
            )

    def _step(self, progress: Progress) -> None:
        self._done = progress.step / max(progress.steps, 1)
        if progress.phase == "preparing":  # an image; many take longer than an epoch
            self._journal.part()
        self._journal.steps(progress.to_json())

    def _is_to_stop(self) -> bool:
        return self._interruption.requested or self._collapse is not None

    def _active_scores(self, dataset: Dataset, base_scores: Scores) -> Scores:
        """Return the scores of what is served now: of several networks, those of the best.

        One that cannot be loaded serves nobody: it must not keep all others from being served.
        """
        found, problems = [], []
        for component in self._own.served():
            if component.sha256 == self._own.base.sha256:
                continue
            try:
                found.append(self._own.score(component, dataset.hold_out))
            except ModelError as error:
                problems.append(
                    f"{component.name} is served now, but could not be compared: {error.message} "
                    "The base network was compared in its place."
                )
        if problems:
            self._journal.tell(not_compared=problems)
        return max(found, key=lambda scores: sum(precision_of(scores)), default=base_scores)

    def _tested(self, candidate: Component, verdict: Verdict, dataset: Dataset) -> Verdict:
        """Return the verdict with the numbers of the test set, which have not decided it."""
        if not dataset.test:
            return verdict
        facts = facts_of_test(
            self._own.score(candidate, dataset.test), self._own.score(self._own.base, dataset.test)
        )
        self._journal.tell(test=facts)
        return replace(verdict, numbers={**verdict.numbers, "test": facts})

    def _publish(self, trained: FineTuned, verdict: Verdict, dataset: Dataset) -> Version:
        return self._maker.make(
            Made(
                weights=trained.weights,
                start=self._own.start,
                named_after=self._own.start.name,
                diameter=trained.diameter,
                facts={
                    **self._own.facts,
                    "controls": list(self._session.controls),
                    "metrics": dict(verdict.numbers),
                    "data": data_of(dataset),
                },
                metrics=verdict.numbers,
                take=self._session.controls if verdict.promote else (),
                sentence=verdict.sentence,
                base_requested=dataset.manifest.get("base_requested"),
                pictures=self._own.pictures(),
            )
        )
