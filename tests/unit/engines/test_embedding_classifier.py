"""Answers for `Choices`: what is asked for is embedded once, and answered by what was learned."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from ml_backend.domain import (
    ChoicesControl,
    ClassificationOptions,
    Component,
    FetchedFile,
    Image,
    Pixels,
    Priority,
    Urgency,
)
from ml_backend.engines.catalogue import component_of_version, file_sha256
from ml_backend.engines.classification import EmbeddingClassifier, is_for_choices
from ml_backend.engines.classifier import Classifier, ControlModel
from ml_backend.engines.classifier_file import to_file
from ml_backend.engines.clustering import assign, fit_clusters
from ml_backend.engines.embedding import Embedder, Embeddings
from ml_backend.engines.embedding_cache import EmbeddingCache
from ml_backend.engines.head_competition import compete
from ml_backend.engines.head_trials import ItemClusters
from ml_backend.engines.scaling import fit_scaling
from ml_backend.errors import CheckpointInvalid, ImageDecodeError, ModelNotFound

Result = TypeVar("Result")

CONTROL = ChoicesControl(
    name="kind", to_name="image", value_key="image", choices=("dark", "bright")
)


@dataclass
class MeanEmbedder:
    """Four numbers about an image; counts what it embeds."""

    sha256: str = "e" * 64
    name: str = "means-1"
    dimension: int = 4
    embedded: int = 0

    def embed(self, pixels: Sequence[Pixels]) -> Embeddings:
        """Return (N, 4)."""
        self.embedded += len(pixels)
        rows = [(one.mean(), one.std(), one.max(), one.min()) for one in pixels]
        return np.array(rows, np.float32).reshape(len(pixels), 4)


@dataclass
class Bench:
    """A classifier of dark and bright images in a version folder, and what serves it."""

    folder: Path
    embedder: MeanEmbedder = field(default_factory=MeanEmbedder)
    on_device: list[Urgency] = field(default_factory=list)
    decoded: int = 0

    def __post_init__(self) -> None:
        self.weights = self.folder / "embedder.safetensors"
        self.weights.write_bytes(b"weights of the embedder")
        self.embedder_component = Component(
            name="means-1",
            architecture="timm",
            sha256=file_sha256(self.weights),
            path=str(self.weights),
            licence="MIT",
        )
        self.classifier = EmbeddingClassifier(
            EmbeddingCache(self.folder / "embeddings.sqlite3", 10),
            resolve=self.resolve,
            open_embedder=self.open_embedder,
            run_on_device=self.run_on_device,
        )

    def resolve(self, name: str) -> Component:
        if name != "means-1":
            raise ModelNotFound(f"There is no embedder {name!r}.")
        return self.embedder_component

    def open_embedder(self, component: Component) -> Embedder:
        return self.embedder

    def run_on_device(self, work: Callable[[], Result], *, priority: Urgency) -> Result:
        self.on_device.append(priority)
        return work()

    def decode(self, file: FetchedFile) -> Image:
        self.decoded += 1
        if file.sha256 == "broken":
            raise ImageDecodeError("It is no image.")
        return Image(pixels=picture(int(file.sha256)), sha256=file.sha256)

    def version(self, **parent: str) -> Component:
        name = "means-1-logistic-p1-v1"
        pixels = [picture(value, seed) for value in (30, 220) for seed in range(20)]
        embeddings = MeanEmbedder().embed(pixels)
        scaling = fit_scaling(embeddings)
        points = scaling.apply(embeddings)
        clustering = fit_clusters(points, k=2, seed=0)
        rows, _ = assign(points, clustering)
        labels = [frozenset({"dark"})] * 20 + [frozenset({"bright"})] * 20
        head = compete(
            points,
            labels,
            CONTROL.choices,
            multiple=False,
            seed=0,
            clusters=ItemClusters(rows=rows, count=2),
        )
        folder = self.folder / name
        folder.mkdir()
        model = ControlModel(
            classes=CONTROL.choices,
            multiple=False,
            head=head,
            clustering=clustering,
            cluster_names={},
        )
        to_file(
            folder / "weights.safetensors",
            Classifier(
                embedder="means-1",
                embedder_sha256="e" * 64,
                scaling=scaling,
                controls={"kind": model},
            ),
        )
        manifest = {
            "name": name,
            "sha256": file_sha256(folder / "weights.safetensors"),
            "parent": {"name": "means-1", "sha256": "-", "path": str(self.weights), **parent},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return component_of_version(folder)

    def ask(
        self, brightness: int | str, component: Component, control: ChoicesControl = CONTROL
    ) -> tuple[str, ...]:
        file = FetchedFile(path=self.folder, sha256=str(brightness), size=1)
        return self.classifier.classify(
            lambda: file, self.decode, control, component=component, priority=Priority.BATCH
        ).choices


def picture(value: int, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).normal(value, 5, (8, 8, 1))
    return noise.clip(0, 255).astype(np.uint8)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_version_of_classes_is_known_as_one(bench: Bench) -> None:
    component = bench.version()

    assert component.architecture == "classifier"
    assert is_for_choices(component)
    assert is_for_choices(bench.embedder_component)


def test_images_are_answered_by_what_was_learned(bench: Bench) -> None:
    component = bench.version()

    assert bench.ask(25, component) == ("dark",)
    assert bench.ask(225, component) == ("bright",)


def test_an_image_is_decoded_and_embedded_once(bench: Bench) -> None:
    component = bench.version()

    for _ in range(3):
        bench.ask(25, component)

    assert (bench.decoded, bench.embedder.embedded) == (1, 1)


def test_another_plane_of_a_stack_is_another_image(bench: Bench) -> None:
    component = bench.version()
    other = ChoicesControl(
        name="kind",
        to_name="image",
        value_key="image",
        choices=CONTROL.choices,
        options=ClassificationOptions(plane=2),
    )

    bench.ask(25, component)
    bench.ask(25, component, other)

    assert bench.embedder.embedded == 2


def test_before_anything_was_learned_nothing_is_fetched_and_nothing_said(bench: Bench) -> None:
    answer = bench.classifier.classify(
        lambda: pytest.fail("it was fetched"),
        bench.decode,
        CONTROL,
        component=bench.embedder_component,
        priority=Priority.BATCH,
    )

    assert (answer.choices, answer.score, answer.cluster) == ((), None, None)


def test_a_choice_that_the_config_lost_is_not_answered(bench: Bench) -> None:
    fewer = ChoicesControl(name="kind", to_name="image", value_key="image", choices=("bright",))

    assert bench.ask(25, bench.version(), fewer) == ()


def test_single_objects_are_answered_one_by_one(bench: Bench) -> None:
    cutouts = [picture(220), picture(30), picture(220)]

    answers = bench.classifier.classify_objects(
        cutouts, CONTROL, component=bench.version(), priority=Priority.INTERACTIVE
    )

    assert [answer.choices for answer in answers] == [("bright",), ("dark",), ("bright",)]
    assert bench.embedder.embedded == 2  # two are the same to the bit
    assert bench.on_device == [Priority.INTERACTIVE]


def test_an_image_that_cannot_be_read_is_refused_by_itself(bench: Bench) -> None:
    component = bench.version()

    with pytest.raises(ImageDecodeError):
        bench.ask("broken", component)

    assert bench.ask(25, component) == ("dark",)


def test_a_damaged_file_is_refused_when_it_is_warmed(bench: Bench) -> None:
    component = bench.version()
    bench.classifier.warm(component)
    weights = Path(component.path)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    with pytest.raises(CheckpointInvalid, match="checksum"):
        bench.classifier.warm(component)


def test_another_embedder_than_it_was_trained_with_is_refused(bench: Bench) -> None:
    component = bench.version()
    bench.embedder.sha256 = "f" * 64

    with pytest.raises(CheckpointInvalid, match="another 'means-1'"):
        bench.classifier.warm(component)


def test_an_embedder_whose_weights_have_moved_is_found_by_its_name(bench: Bench) -> None:
    component = bench.version(path="/nowhere/weights.safetensors")

    assert bench.ask(25, component) == ("dark",)


def test_an_embedder_that_is_gone_is_told_of(bench: Bench) -> None:
    component = bench.version(path="/nowhere/weights.safetensors", name="gone-1")

    with pytest.raises(ModelNotFound, match="gone-1"):
        bench.classifier.warm(component)
