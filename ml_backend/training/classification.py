"""One session that learns the classes of images: clusters, heads, gate, a published version.

What takes long, the embeddings, is kept on disk as it is made; the rest takes seconds and is done
anew when a session is taken up again. Each `Choices` control competes for itself: the new version
is served for those that it is better for, the others keep theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml_backend.domain import ChoicesControl, Component
from ml_backend.engines.classifier import Classifier, ControlModel
from ml_backend.engines.classifier_file import to_file
from ml_backend.engines.clustering import (
    Clustering,
    assign,
    choose_k,
    fit_clusters,
    name_clusters,
)
from ml_backend.engines.head_competition import compete
from ml_backend.engines.head_trials import ItemClusters
from ml_backend.engines.heads import Head
from ml_backend.engines.scaling import Scaling, fit_scaling
from ml_backend.errors import TrainingError
from ml_backend.learning import Promotion, Session, SessionState, Trigger
from ml_backend.model_files.version_folders import Publisher
from ml_backend.training.choices_gate import ControlVerdict, judge_control, takes_candidate
from ml_backend.training.chosen_images import ChoicesDataset, ChosenImage, Item
from ml_backend.training.control_trials import control_trial, embeddings_of
from ml_backend.training.interruption import Interruption
from ml_backend.training.learned_report import kind_of, learned_report
from ml_backend.training.outcome import Outcome
from ml_backend.training.project_images import ProjectImages
from ml_backend.training.session_log import Phase, SessionLog
from ml_backend.training.version_making import Made, VersionMaker, VersionRecords

WEIGHTS: Final = "classifier.safetensors"  # in the session's folder

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """All images of a project in their clusters, for pictures."""

    items: tuple[Item, ...]
    points: FloatArray = field(repr=False)  # (N, d) scaled
    clusters: IntArray = field(repr=False)  # (N,) identities
    distances: FloatArray = field(repr=False)  # (N,) to the centres
    chosen: Mapping[Item, str] = field(repr=False)  # what people chose
    control: str  # of which clusters and choices are


@dataclass(frozen=True, kw_only=True)
class ClassificationTools:
    """What a session works with."""

    controls: tuple[ChoicesControl, ...]
    embedder: Component
    embedder_sha256: str  # of all that decides an embedding, also how images are prepared
    families: Mapping[str, slice] | None  # columns of an embedding that belong together
    dataset: Callable[[], ChoicesDataset]
    images: Callable[[ChoicesDataset], ProjectImages]  # embeds what is missing
    # what a control is served with now, of the same embedder; None: nothing that was learned
    served: Callable[[str], Classifier | None]
    draw: Callable[[Clustered], Mapping[str, bytes]]  # PNG files by name
    promotion: Promotion
    publisher: Publisher
    versions: VersionRecords
    base_requested: str
    facts: Mapping[str, Any]  # for the version's manifest
    seed: int = 0
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One control's candidate, and what the gate says of it."""

    control: ChoicesControl
    model: ControlModel
    verdict: ControlVerdict
    taken: bool


class ClassificationRun:
    """Runs one session in this process; `run` is called once."""

    def __init__(
        self,
        session: Session,
        tools: ClassificationTools,
        *,
        journal: SessionLog,
        interruption: Interruption,
        folder: Path,
    ) -> None:
        """Keep the collaborators; `folder` is the session's own."""
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

    def run(self) -> Outcome:
        """Return what came of it, for the records; see `outcome.guarded` for what it raises."""
        made = self._maker.made_before()
        if made is not None:
            return self._maker.conclude(made)
        self._journal.phase(Phase.DATASET)
        dataset = self._own.dataset()
        self._journal.keep_manifest(
            {**dataset.manifest, "base_requested": self._own.base_requested}
        )
        self._journal.tell(**dataset.report)
        self._interruption.check()
        too_early = self._too_early(dataset)
        if too_early is not None:
            return Outcome(state=SessionState.COMPLETED, message=too_early)

        self._journal.phase(Phase.EMBEDDING)
        images = self._own.images(dataset)
        self._journal.tell(embedded=len(images.items), not_embedded=list(images.left_out))
        if not images.items:
            raise TrainingError(
                "There is no image to learn from: nobody has chosen anything yet, and the "
                "project's images could not be asked for; set LABEL_STUDIO_API_KEY, or label some."
            )
        self._journal.phase(Phase.CLUSTERING)
        scaling = fit_scaling(images.embeddings, groups=self._own.families)
        models = {
            control.name: self._learn(control, dataset, images, scaling)
            for control in self._own.controls
        }
        candidate = Classifier(
            embedder=self._own.embedder.name,
            embedder_sha256=self._own.embedder_sha256,
            scaling=scaling,
            controls=models,
        )
        self._journal.phase(Phase.SCORING)
        trials = [self._try(control, candidate, dataset) for control in self._own.controls]
        self._tell(trials)
        weights = self._folder / WEIGHTS
        to_file(weights, candidate)
        pictures = self._draw(candidate, images, dataset)
        with self._interruption.shielded():  # short, and whole the next time if it is killed
            self._journal.phase(Phase.PUBLISHING)
            return self._maker.conclude(self._maker.make(self._made(trials, weights, pictures)))

    def _too_early(self, dataset: ChoicesDataset) -> str | None:
        """Return a sentence where nothing can be learned yet and nobody asked for clusters."""
        of_objects = any(control.objects_of for control in self._own.controls)
        if self._session.trigger is not Trigger.POLICY and not of_objects:
            return None
        labelled = [*dataset.training, *dataset.hold_out]
        names = ", ".join(self._session.controls)
        if not labelled:
            advice = "" if of_objects else " Press Start Training for clusters of similar images."
            return f"Nobody has chosen anything for {names} yet.{advice}"
        answers = {
            (control.name, image.chosen.get(control.name))
            for control in self._own.controls
            for image in labelled
            if control.name in image.chosen
        }
        if len(answers) == len({name for name, _ in answers}):
            return (
                f"All that was chosen for {names} so far is the same; there is nothing to tell "
                "apart yet."
            )
        return None

    def _learn(
        self,
        control: ChoicesControl,
        dataset: ChoicesDataset,
        images: ProjectImages,
        scaling: Scaling,
    ) -> ControlModel:
        """Return what the images for training teach of one control."""
        training = [image for image in dataset.training if control.name in image.chosen]
        chosen = {image.item: image.chosen[control.name] for image in training}
        points = scaling.apply(images.embeddings)
        served = self._own.served(control.name)
        clustering = fit_clusters(
            points,
            k=control.options.clusters or choose_k(list(chosen.values()), items=len(images.items)),
            seed=self._own.seed,
            previous=None if served is None else served.controls[control.name].clustering,
            previous_identities=_clusters_of(served, control.name, images.embeddings),
            on_progress=lambda _share: self._go_on(),
        )
        rows, _ = assign(points, clustering)
        labelled = [index for index, item in enumerate(images.items) if item in chosen]
        self._go_on()
        return ControlModel(
            classes=control.choices,
            multiple=control.multiple,
            head=self._compete(control, training, scaling, clustering),
            clustering=clustering,
            cluster_names=name_clusters(
                clustering.identities[rows[labelled]],
                [chosen[images.items[index]] for index in labelled],
                multiple=control.multiple,
            ),
        )

    def _compete(
        self,
        control: ChoicesControl,
        training: Sequence[ChosenImage],
        scaling: Scaling,
        clustering: Clustering,
    ) -> Head | None:
        if not training:
            return None
        points = scaling.apply(embeddings_of(training))
        rows, _ = assign(points, clustering)
        return compete(
            points,
            [image.chosen[control.name] for image in training],
            control.choices,
            multiple=control.multiple,
            seed=self._own.seed,
            clusters=ItemClusters(rows=rows, count=len(clustering)),
            groups=[image.group for image in training],
            on_progress=lambda _share: self._go_on(),
        )

    def _try(
        self, control: ChoicesControl, candidate: Classifier, dataset: ChoicesDataset
    ) -> _Trial:
        """Return how a control's candidate does beside what is served, on the hold-out."""
        served = self._own.served(control.name)
        trial = control_trial(control, candidate, served, dataset)
        verdict = judge_control(trial)
        return _Trial(
            control=control,
            model=candidate.controls[control.name],
            verdict=verdict,
            taken=takes_candidate(verdict, self._own.promotion, claims=trial.claims),
        )

    def _tell(self, trials: Sequence[_Trial]) -> None:
        self._journal.tell(
            gate={
                trial.control.name: {**trial.verdict.numbers, "taken": trial.taken}
                for trial in trials
            },
            learned={trial.control.name: learned_report(trial.model) for trial in trials},
            verdict=" ".join(trial.verdict.sentence for trial in trials),
        )

    def _draw(
        self, classifier: Classifier, images: ProjectImages, dataset: ChoicesDataset
    ) -> Mapping[str, bytes]:
        # one that people use says most: of several the one with the most different answers
        shown = max(self._own.controls, key=lambda one: _different(one.name, dataset)).name
        found = classifier.answer(shown, images.embeddings)
        self._go_on()
        return self._own.draw(
            Clustered(
                items=images.items,
                points=classifier.scaling.apply(images.embeddings),
                clusters=found.clusters,
                distances=found.distances,
                chosen={
                    image.item: ", ".join(sorted(image.chosen[shown]))
                    for image in (*dataset.training, *dataset.hold_out)
                    if shown in image.chosen
                },
                control=shown,
            )
        )

    def _made(self, trials: Sequence[_Trial], weights: Path, pictures: Mapping[str, bytes]) -> Made:
        taken = [trial for trial in trials if trial.taken]
        kinds = sorted({kind_of(trial.model) for trial in taken or trials})
        verdicts = " ".join(trial.verdict.sentence for trial in trials)
        if taken:
            sentence = f"Promoted: {verdicts}"
        elif self._own.promotion is Promotion.NEVER:
            sentence = f"Kept as a candidate, because this project never promotes: {verdicts}"
        else:
            sentence = f"Kept as a candidate: {verdicts}"
        numbers = {trial.control.name: dict(trial.verdict.numbers) for trial in trials}
        return Made(
            weights=weights,
            start=self._own.embedder,
            named_after=f"{self._own.embedder.name}-{'-'.join(kinds)}",
            diameter=None,
            facts={
                **self._own.facts,
                "controls": list(self._session.controls),
                "metrics": numbers,
                "learned": {trial.control.name: learned_report(trial.model) for trial in trials},
                "pictures": sorted(pictures),
            },
            metrics={"controls": numbers},
            take=tuple(trial.control.name for trial in taken),
            sentence=sentence,
            base_requested=self._own.base_requested,
            pictures=pictures,
        )

    def _go_on(self) -> None:
        self._interruption.check()
        self._journal.part()


def _different(control: str, dataset: ChoicesDataset) -> int:
    labelled = (*dataset.training, *dataset.hold_out)
    return len({image.chosen[control] for image in labelled if control in image.chosen})


def _clusters_of(
    classifier: Classifier | None, control: str, embeddings: FloatArray
) -> IntArray | None:
    """Return the cluster of each image by what is served, None where nothing is."""
    return None if classifier is None else classifier.answer(control, embeddings).clusters
