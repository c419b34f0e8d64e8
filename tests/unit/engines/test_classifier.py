"""A classifier answers every control, and is the same after it was written and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from ml_backend.engines import classifier_file as classifier_file_module
from ml_backend.engines.checkpoint_keys import safetensors_header
from ml_backend.engines.classifier import Classifier, ControlModel
from ml_backend.engines.classifier_file import from_file, to_file
from ml_backend.engines.clustering import NO_CLUSTER, assign, fit_clusters, name_clusters
from ml_backend.engines.head_competition import compete
from ml_backend.engines.head_fitting import (
    Fit,
    fit_cluster_table,
    fit_logistic,
    fit_mlp,
    fit_neighbours,
)
from ml_backend.engines.head_models import Kind
from ml_backend.engines.head_trials import ItemClusters, LabelledItems
from ml_backend.engines.heads import Decision, Head
from ml_backend.engines.scaling import Scaling, fit_scaling
from ml_backend.errors import CheckpointInvalid, ModelError, NotFound

Points = npt.NDArray[np.float32]

CLASSES = ("Spiky", "Round, or nearly", "Rod/stick")
WIDTH = 5


def items() -> tuple[Points, npt.NDArray[np.int64]]:
    """Return raw embeddings in three clouds, and the class of each."""
    random = np.random.default_rng(0)
    of = np.repeat(np.arange(3), 15)
    points = random.normal(size=(45, WIDTH)) + 8 * np.eye(3, WIDTH)[of]
    return (100 + 10 * points).astype(np.float32), of


WIDTH_OF_POINTS = 4


@cache
def scaling() -> Scaling:
    """Return a scaling to fewer numbers than an embedding has."""
    return fit_scaling(items()[0], most_axes=WIDTH_OF_POINTS)


FITS: dict[Kind, Fit | None] = {
    Kind.CONSTANT: None,
    Kind.CLUSTERS: fit_cluster_table,
    Kind.LOGISTIC: partial(fit_logistic, inverse_penalty=1.0),
    Kind.NEIGHBOURS: partial(fit_neighbours, neighbours=5, cosine=True),
    Kind.MLP: fit_mlp,
}


@cache
def control(kind: Kind, *, multiple: bool = False) -> ControlModel:
    """Return the model of a control whose head is of that kind."""
    raw, of = items()
    points = scaling().apply(raw)
    clustering = fit_clusters(points, k=3, seed=0)
    rows, _ = assign(points, clustering)
    clusters = ItemClusters(rows=rows, count=3)
    labels = [frozenset({CLASSES[number]}) for number in of.tolist()]
    head = compete(points, labels, CLASSES, multiple=multiple, seed=0, clusters=clusters)
    assert head is not None
    labelled = LabelledItems(
        embeddings=points,
        targets=np.eye(3, dtype=bool)[of],
        groups=np.arange(45),
        clusters=clusters,
        independent=multiple,
    )
    return ControlModel(
        classes=CLASSES,
        multiple=multiple,
        head=replace(head, scorer=labelled.scorer(np.arange(45), FITS[kind], 0)),
        clustering=clustering,
        cluster_names=name_clusters(clustering.identities[rows], labels, multiple=multiple),
    )


def classifier(**controls: ControlModel) -> Classifier:
    """Return a classifier of these controls."""
    return Classifier(
        embedder="shapes-1", embedder_sha256="ab" * 32, scaling=scaling(), controls=controls
    )


# answers


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.CONSTANT])
def test_every_kind_of_head_answers_raw_embeddings(kind: Kind) -> None:
    raw, of = items()

    found = classifier(shape=control(kind)).answer("shape", raw)

    assert [answer.choices for answer in found.decisions] == [(CLASSES[n],) for n in of]
    assert [answer.score for answer in found.decisions] == pytest.approx(
        found.probabilities.max(axis=1).tolist()
    )
    assert found.classes == CLASSES
    assert set(found.clusters.tolist()) == {0, 1, 2}
    assert (found.distances < 2).all()  # points have the length 1


def test_an_unsure_answer_is_none_and_keeps_its_score() -> None:
    raw, of = items()
    between = (raw[of == 0].mean(axis=0) + raw[of == 1].mean(axis=0))[None] / 2

    model = classifier(shape=control(Kind.LOGISTIC))

    (always,) = model.answer("shape", between).decisions
    (sure,) = model.answer("shape", between, unsure_below=0.99).decisions
    assert len(always.choices) == 1
    assert 0.3 < always.score < 0.99
    assert sure == Decision(choices=(), score=always.score)


def test_a_control_without_labels_abstains_and_tells_the_cluster() -> None:
    shape = replace(control(Kind.CLUSTERS), head=None, cluster_names={})

    found = classifier(shape=shape).answer("shape", items()[0])

    assert set(found.decisions) == {Decision(choices=(), score=0.0)}
    assert set(found.clusters.tolist()) == {0, 1, 2}
    assert not found.probabilities.any()


def test_a_control_without_clusters_tells_none() -> None:
    shape = replace(control(Kind.LOGISTIC), clustering=None, cluster_names={})

    found = classifier(shape=shape).answer("shape", items()[0])

    assert set(found.clusters.tolist()) == {NO_CLUSTER}
    assert found.decisions[0].choices == (CLASSES[0],)


@pytest.mark.parametrize("multiple", [False, True])
def test_an_embedding_that_is_not_finite_spoils_no_other(multiple: bool) -> None:
    model = classifier(shape=control(Kind.LOGISTIC, multiple=multiple))
    raw, _ = items()
    expected = model.answer("shape", raw)
    raw[1, 2] = np.nan

    found = model.answer("shape", raw)

    assert found.decisions[1] == Decision(choices=(), score=0.0)
    assert found.clusters[1] == NO_CLUSTER
    assert found.decisions[0] == expected.decisions[0]
    assert found.decisions[2:] == expected.decisions[2:]


@pytest.mark.parametrize("kind", list(Kind))
def test_no_items_are_no_answers(kind: Kind) -> None:
    found = classifier(shape=control(kind)).answer("shape", np.zeros((0, WIDTH), np.float32))

    assert found.decisions == ()
    assert found.probabilities.shape == (0, 3)


def test_embeddings_of_another_embedder_are_refused() -> None:
    with pytest.raises(ModelError, match="5 numbers"):
        classifier(shape=control(Kind.LOGISTIC)).answer("shape", np.zeros((1, 7), np.float32))


def test_an_unknown_control_is_refused() -> None:
    with pytest.raises(NotFound, match="colour"):
        classifier().answer("colour", np.zeros((1, WIDTH), np.float32))


# files


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_classifier_answers_the_same_after_it_was_written_and_read(
    tmp_path: Path, kind: Kind, multiple: bool
) -> None:
    name = 'shape, "1"/2'
    written = classifier(**{name: control(kind, multiple=multiple)})
    path = tmp_path / "classifier.safetensors"
    to_file(path, written)

    read = from_file(path)

    raw, _ = items()
    one, other = written.answer(name, raw), read.answer(name, raw)
    assert one.decisions == other.decisions
    assert one.probabilities.tobytes() == other.probabilities.tobytes()
    assert one.clusters.tolist() == other.clusters.tolist()
    assert (read.embedder, read.embedder_sha256) == ("shapes-1", "ab" * 32)
    assert read.controls[name].cluster_names == written.controls[name].cluster_names
    before, after = written.controls[name].head, read.controls[name].head
    assert isinstance(before, Head)
    assert isinstance(after, Head)
    assert after.kind is kind
    assert after.report == before.report


def test_equal_classifiers_make_equal_files(tmp_path: Path) -> None:
    model = classifier(one=control(Kind.MLP), other=control(Kind.NEIGHBOURS, multiple=True))
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        to_file(path, model)

    to_file(tmp_path / "c", from_file(paths[0]))

    assert len({path.read_bytes() for path in [*paths, tmp_path / "c"]}) == 1


def test_a_classifier_without_controls_or_models_is_written_too(tmp_path: Path) -> None:
    nothing = ControlModel(classes=(), multiple=True, head=None, clustering=None, cluster_names={})
    to_file(tmp_path / "a", classifier(shape=nothing))

    found = from_file(tmp_path / "a").answer("shape", items()[0])

    assert set(found.decisions) == {Decision(choices=(), score=0.0)}


Arrays = dict[str, npt.NDArray[Any]]


def changed(path: Path, change: Callable[[Arrays, dict[str, Any]], object]) -> Path:
    """Return a file in which the arrays and the description were changed."""
    arrays, text = load_file(path), safetensors_header(path)[1]["classifier"]
    description = json.loads(text)
    change(arrays, description)
    save_file(arrays, path, metadata={"classifier": json.dumps(description)})
    return path


def drop(name: str) -> Callable[[Arrays, dict[str, Any]], object]:
    """Return a change that takes an array away."""
    return lambda arrays, _: arrays.pop(name)


def put(name: str, array: npt.NDArray[Any]) -> Callable[[Arrays, dict[str, Any]], object]:
    """Return a change that puts an array."""
    return lambda arrays, _: arrays.update({name: array})


def say(*keys: str | int, value: Any) -> Callable[[Arrays, dict[str, Any]], object]:
    """Return a change of one value of the description."""

    def change(_: Arrays, description: Any) -> None:
        for key in keys[:-1]:
            description = description[key]
        description[keys[-1]] = value

    return change


F4 = np.float32
DAMAGES = {
    "another format": say("format", value=2),
    "no format": say("format", value="1"),
    "an unknown field": say("pickle", value="x"),
    "a class twice": say("controls", 0, "classes", value=["a", "b", "a"]),
    "fewer classes": say("controls", 0, "classes", value=["a", "b"]),
    "another kind": say("controls", 0, "head", "kind", value="mlp"),
    "an unknown kind": say("controls", 0, "head", "kind", value="pickle"),
    "a model of nothing": say("controls", 0, "head", "kind", value="constant"),
    "no votes": say("controls", 0, "head", "settings", value={"neighbours": 0, "cosine": True}),
    "no report": say("controls", 0, "head", "report", value=None),
    "an identity that is not free": say("controls", 0, "clustering", "next_identity", value=2),
    "no head": say("controls", 0, "head", value=None),
    "no clusters": say("controls", 0, "clustering", value=None),
    "an array missing": drop("0/head/fixed"),
    "a part of the model missing": drop("0/head/model/votes"),
    "a part of the scaling missing": drop("scaling/mean"),
    "too much scaling": put("scaling/extra", np.zeros(3, F4)),
    "a scaling of another shape": put("scaling/mean", np.zeros(3, F4)),
    "an array too many": put("0/head/extra", np.zeros(3, F4)),
    "another shape": put("0/head/slopes", np.ones(4, F4)),
    "another type": put("0/head/slopes", np.ones(3, np.float64)),
    "another rank": put("0/head/learned", np.zeros((3, 1), np.int64)),
    "numbers that are not finite": put(
        "0/clustering/centres", np.full((3, WIDTH_OF_POINTS), np.nan, F4)
    ),
    "another width": put("0/clustering/centres", np.zeros((3, WIDTH), F4)),
    "a class out of range": put("0/head/learned", np.array([0, 1, 7])),
    "classes in disorder": put("0/head/learned", np.array([0, 2, 1])),
    "an identity twice": put("0/clustering/identities", np.array([0, 1, 1])),
    "references of another width": put("0/head/model/references", np.zeros((45, WIDTH), F4)),
    "fewer references": put("0/head/model/references", np.zeros((44, WIDTH_OF_POINTS), F4)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_whose_parts_do_not_fit_is_refused_with_a_sentence(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "classifier.safetensors"
    to_file(path, classifier(shape=control(Kind.NEIGHBOURS)))

    with pytest.raises(CheckpointInvalid) as refusal:
        from_file(changed(path, DAMAGES[damage]))

    assert path.name in refusal.value.message
    assert refusal.value.message.endswith(".")


def test_clusters_that_a_head_does_not_know_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    to_file(path, classifier(shape=control(Kind.CLUSTERS)))

    with pytest.raises(CheckpointInvalid, match="other clusters"):
        from_file(changed(path, put("0/head/model/table", np.zeros((2, 3), np.float32))))


def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "classifier.safetensors"
    with pytest.raises(CheckpointInvalid, match="cannot be read"):
        from_file(path)

    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointInvalid, match="safetensors"):
        from_file(path)

    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(CheckpointInvalid, match="no classifier"):
        from_file(path)

    save_file({}, path, metadata={"classifier": "{"})
    with pytest.raises(CheckpointInvalid, match="damaged"):
        from_file(path)

    to_file(path, classifier(shape=control(Kind.LOGISTIC)))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointInvalid, match="its end is missing"):
        from_file(path)

    monkeypatch.setattr(classifier_file_module, "LARGEST_FILE", 10)
    with pytest.raises(CheckpointInvalid, match="at most 10"):
        from_file(path)
