"""Answers for `Choices` controls: an image's embedding, kept on disk, and a classifier on top."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import numpy as np
import structlog

from ml_backend.domain import (
    CLASSIFIER,
    ChoicesControl,
    Classification,
    Component,
    FetchedFile,
    Image,
    Pixels,
    Priority,
    Urgency,
)
from ml_backend.engines import descriptors
from ml_backend.engines.catalogue import manifest_of, verify_component
from ml_backend.engines.classifier import Classifier
from ml_backend.engines.classifier_file import from_file
from ml_backend.engines.clustering import NO_CLUSTER
from ml_backend.engines.embedder_catalogue import DESCRIPTORS, TIMM, descriptors_component
from ml_backend.engines.embedding import Embedder, Embeddings
from ml_backend.engines.embedding_cache import EmbeddingCache
from ml_backend.engines.image_embeddings import (
    Embeddable,
    ImageEmbeddings,
    OnDevice,
    content_of,
    here,
)
from ml_backend.errors import CheckpointInvalid

Result = TypeVar("Result")

EMBEDDERS: Final = frozenset({DESCRIPTORS, TIMM})
"""Architectures of components that embed, and answer nothing by themselves."""

_PROBE = np.zeros((32, 32, 1), np.uint8)


class RunOnDevice(Protocol):
    """Runs work on the device, when it is its turn."""

    def __call__(self, work: Callable[[], Result], *, priority: Urgency) -> Result:
        """Return what `work` returns."""
        ...


log = structlog.get_logger(__name__)


def is_for_choices(component: Component) -> bool:
    """Return whether `Choices` controls are served with `component`."""
    return component.architecture == CLASSIFIER or component.architecture in EMBEDDERS


class EmbeddingClassifier:
    """An `ImageClassifier`; safe to call from many threads."""

    def __init__(
        self,
        cache: EmbeddingCache,
        *,
        resolve: Callable[[str], Component],
        open_embedder: Callable[[Component], Embedder],
        run_on_device: RunOnDevice,
        max_classifiers: int = 64,
        max_embedders: int = 3,
    ) -> None:
        """Keep the collaborators.

        Args:
            cache: of embeddings.
            resolve: returns the embedder of a name, where its weights lie elsewhere by now;
                raises ModelError.
            open_embedder: loads one; raises ModelError.
            run_on_device: runs what a network computes; descriptors run in the caller's thread.
            max_classifiers: in memory, some megabytes each.
            max_embedders: in memory.
        """
        self._cache = cache
        self._resolve = resolve
        self._open_embedder = open_embedder
        self._run_on_device = run_on_device
        self._max_classifiers, self._max_embedders = max_classifiers, max_embedders
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # loading is rare, and one at a time is quick enough
        self._classifiers: OrderedDict[str, Classifier] = OrderedDict()  # by sha256
        self._embedders: OrderedDict[str, Embedder] = OrderedDict()  # by sha256

    def warm(self, component: Component) -> None:
        """Load, verify and try what a control is served with.

        Raises:
            CheckpointInvalid: its file is not what it was, or it belongs to another embedder.
            ModelError, EngineError
        """
        if component.architecture in EMBEDDERS:
            embedder = self._embedder_of(component)
            self._on_device(component.name, Priority.BACKGROUND)(lambda: embedder.embed([_PROBE]))
            return
        verify_component(component)
        classifier = self._classifier(component)
        embedder = self._embedder_for(classifier, component)
        run = self._on_device(classifier.embedder, Priority.BACKGROUND)
        probe = run(lambda: embedder.embed([_PROBE]))
        for control in classifier.controls:
            classifier.answer(control, probe)

    def classify(
        self,
        fetch: Callable[[], FetchedFile],
        decode: Callable[[FetchedFile], Image],
        control: ChoicesControl,
        *,
        component: Component,
        priority: Urgency,
    ) -> Classification:
        """Return what `component` says of an image for `control`.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        if component.architecture in EMBEDDERS:  # nothing was learned yet, and nothing is claimed
            return Classification(choices=(), score=None)
        classifier = self._classifier(component)
        file = fetch()
        options = control.options
        embeddings = ImageEmbeddings(
            self._embedder_for(classifier, component),
            self._cache,
            on_device=self._on_device(classifier.embedder, priority),
        )
        vector = embeddings.one(
            Embeddable(
                content=content_of(file.sha256, plane=options.plane, channels=options.channels),
                decode=partial(decode, file),
            )
        )
        (answer,) = self._answers(classifier, control, vector[None])
        return answer

    def classify_objects(
        self,
        cutouts: Sequence[Pixels],
        control: ChoicesControl,
        *,
        component: Component,
        priority: Urgency,
    ) -> list[Classification]:
        """Return what `component` says of single objects, each cut out of its image.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        classifier = self._classifier(component)
        embeddings = ImageEmbeddings(
            self._embedder_for(classifier, component),
            self._cache,
            on_device=self._on_device(classifier.embedder, priority),
        )
        vectors = embeddings.pixels(cutouts)
        return self._answers(classifier, control, vectors)

    def _answers(
        self, classifier: Classifier, control: ChoicesControl, embeddings: Embeddings
    ) -> list[Classification]:
        answers = classifier.answer(
            control.name, embeddings, unsure_below=control.options.unsure_below
        )
        allowed = set(control.choices)  # the config may have lost one since
        has_head = classifier.controls[control.name].head is not None
        return [
            Classification(
                choices=tuple(choice for choice in decision.choices if choice in allowed),
                score=decision.score if has_head else None,
                cluster=None if cluster == NO_CLUSTER else cluster,
            )
            for decision, cluster in zip(answers.decisions, answers.clusters.tolist(), strict=True)
        ]

    def _classifier(self, component: Component) -> Classifier:
        with self._lock:
            if component.sha256 in self._classifiers:
                self._classifiers.move_to_end(component.sha256)
                return self._classifiers[component.sha256]
        with self._loading:
            classifier = from_file(Path(component.path))
        with self._lock:
            self._classifiers[component.sha256] = classifier
            while len(self._classifiers) > self._max_classifiers:
                self._classifiers.popitem(last=False)
        return classifier

    def _embedder_for(self, classifier: Classifier, component: Component) -> Embedder:
        """Return what a classifier's embeddings are made by.

        Raises:
            CheckpointInvalid: it would not be the one that the classifier was trained with.
        """
        embedder = self._embedder_of(_embedder_component(component, self._resolve))
        if embedder.sha256 != classifier.embedder_sha256:
            raise CheckpointInvalid(
                f"{component.name!r} was trained with another {classifier.embedder!r} than this "
                "machine has; train it again."
            )
        return embedder

    def _embedder_of(self, component: Component) -> Embedder:
        with self._lock:
            if component.sha256 in self._embedders:
                self._embedders.move_to_end(component.sha256)
                return self._embedders[component.sha256]
        with self._loading:
            embedder = self._open_embedder(component)
        log.info("embedder ready", name=component.name, sha256=component.sha256[:12])
        with self._lock:
            self._embedders[component.sha256] = embedder
            while len(self._embedders) > self._max_embedders:
                self._embedders.popitem(last=False)
        return embedder

    def _on_device(self, embedder: str, priority: Urgency) -> OnDevice:
        if embedder == descriptors.NAME:
            return here
        return partial(self._run_on_device, priority=priority)


def _embedder_component(component: Component, resolve: Callable[[str], Component]) -> Component:
    """Return the embedder that the manifest of a classifier names.

    Raises:
        ModelError
    """
    parent = manifest_of(Path(component.path)).get("parent")
    if not isinstance(parent, Mapping) or not isinstance(parent.get("name"), str):
        raise CheckpointInvalid(
            f"The manifest of {component.name!r} does not say which embedder it belongs to; train "
            "it again."
        )
    name, sha256, path = parent["name"], str(parent.get("sha256")), str(parent.get("path"))
    if name == descriptors.NAME:
        return descriptors_component()
    if Path(path).is_file():
        return Component(
            name=name, architecture=TIMM, sha256=sha256, path=path, licence=component.licence
        )
    return resolve(name)
