"""Heads learn what labels tell, and admit what they do not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.engines.classification_scores import expected_calibration_error
from ml_backend.engines.clustering import assign, fit_clusters
from ml_backend.engines.head_competition import AS_GOOD, compete
from ml_backend.engines.head_fitting import (
    Examples,
    competitors,
    fit_cluster_table,
    fit_logistic,
    fit_mlp,
    fit_neighbours,
)
from ml_backend.engines.head_models import Embedded, Kind
from ml_backend.engines.head_trials import ItemClusters
from ml_backend.engines.heads import Decision, Head, decide

pytestmark = pytest.mark.unhurried

Points = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

CLASSES = ("Theca/test/exoskeletal structures", "Eggs, many", "Flagella")


def clouds(
    each: int | tuple[int, ...], *, apart: float = 4.0, classes: int = 3, seed: int = 0
) -> tuple[Points, Numbers]:
    """Return points of some overlapping classes, and the class of each."""
    random = np.random.default_rng(seed)
    sizes = (each,) * classes if isinstance(each, int) else each
    of = np.repeat(np.arange(len(sizes)), sizes)
    points = random.normal(size=(len(of), 6))
    points[:, :classes] += apart * np.eye(classes)[of]
    return points.astype(np.float32), of


def one_each(of: Numbers, classes: tuple[str, ...] = CLASSES) -> list[frozenset[str]]:
    """Return labels of a single choice."""
    return [frozenset({classes[number]}) for number in of.tolist()]


def answers(head: Head, points: Points, *, unsure_below: float = 0.0) -> list[Decision]:
    """Return the decisions of a head."""
    found = head.predict(points)
    return decide(
        found.probabilities, found.classes, multiple=head.multiple, unsure_below=unsure_below
    )


# a single choice


def test_a_head_recognises_classes_that_lie_apart() -> None:
    points, of = clouds(20)
    others, truth = clouds(20, seed=1)

    head = compete(points, one_each(of), CLASSES, multiple=False, seed=0)

    assert head is not None
    right = [a.choices == (CLASSES[n],) for a, n in zip(answers(head, others), truth, strict=True)]
    assert np.mean(right) > 0.95
    assert set(head.report.scores) == {Kind.LOGISTIC, Kind.NEIGHBOURS, Kind.MLP}
    assert head.report.scores[head.kind] >= max(head.report.scores.values()) - AS_GOOD
    assert head.report.metric == "balanced accuracy"
    assert dict(head.report.items_per_class) == dict.fromkeys(CLASSES, 20)
    assert head.report.folds == 5
    assert head.report.remarks == ()


def test_the_same_items_and_seed_give_the_same_bits() -> None:
    points, of = clouds(20)

    heads = [compete(points, one_each(of), CLASSES, multiple=False, seed=3) for _ in range(2)]

    one, other = (head.predict(points).probabilities for head in heads if head is not None)
    assert one.tobytes() == other.tobytes()
    assert heads[0] is not None
    assert heads[1] is not None
    assert heads[0].report == heads[1].report


def test_probabilities_of_new_items_come_true() -> None:
    points, of = clouds(120, apart=1.5)
    others, truth = clouds(600, apart=1.5, seed=1)

    head = compete(points, one_each(of), CLASSES, multiple=False, seed=0)

    assert head is not None
    probabilities = head.predict(others).probabilities
    right = np.argmax(probabilities, axis=1) == truth
    assert expected_calibration_error(probabilities.max(axis=1), right) < 0.05
    assert head.report.calibration_error_after is not None
    assert head.report.calibration_error_after < 0.08


def test_a_rare_class_is_not_drowned_by_a_frequent_one() -> None:
    points, of = clouds((300, 15, 15), apart=2.5)
    others, truth = clouds(200, apart=2.5, seed=1)

    head = compete(points, one_each(of), CLASSES, multiple=False, seed=0)

    assert head is not None
    found = np.argmax(head.predict(others).probabilities, axis=1)
    assert min(np.mean(found[truth == number] == number) for number in range(3)) > 0.7


def test_clusters_that_are_classes_win_because_they_are_simplest() -> None:
    points, of = clouds(30, apart=12.0)
    clusters = fit_clusters(points, k=3, seed=0)
    rows, _ = assign(points, clusters)

    head = compete(
        points,
        one_each(of),
        CLASSES,
        multiple=False,
        seed=0,
        clusters=ItemClusters(rows=rows, count=3),
    )

    assert head is not None
    assert head.kind is Kind.CLUSTERS
    assert set(head.report.scores.values()) == {1.0}
    found = head.predict(points, rows).probabilities
    assert np.argmax(found, axis=1).tolist() == of.tolist()
    assert decide(head.predict(points[:1]).probabilities, CLASSES, multiple=False)[0].choices == ()


def test_a_head_beats_clusters_that_mix_classes() -> None:
    points, of = clouds(30)

    head = compete(
        points,
        one_each(of),
        CLASSES,
        multiple=False,
        seed=0,
        clusters=ItemClusters(rows=np.arange(90) % 2, count=2),
    )

    assert head is not None
    assert head.kind is not Kind.CLUSTERS
    assert head.report.scores[Kind.CLUSTERS] < 0.5


def test_progress_rises_to_one_and_what_it_raises_ends_the_competition() -> None:
    points, of = clouds(20)
    told: list[float] = []
    compete(points, one_each(of), CLASSES, multiple=False, seed=0, on_progress=told.append)

    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) > 10

    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compete(points, one_each(of), CLASSES, multiple=False, seed=0, on_progress=stop)


# few labels and odd ones


def test_no_items_are_no_head() -> None:
    nothing = np.zeros((0, 6), np.float32)

    assert compete(nothing, [], CLASSES, multiple=False, seed=0) is None
    assert compete(nothing, [], (), multiple=True, seed=0) is None


def test_items_without_a_usable_label_are_no_head() -> None:
    points, _ = clouds(1)
    labels = [frozenset[str](), frozenset(CLASSES[:2]), frozenset({"removed"})]

    assert compete(points, labels, CLASSES, multiple=False, seed=0) is None


@pytest.mark.parametrize("count", [1, 2, 98])
def test_one_class_only_is_answered_by_laplace_and_said_so(count: int) -> None:
    points, _ = clouds(count, classes=1)

    head = compete(points, one_each(np.zeros(count, int)), CLASSES, multiple=False, seed=0)

    assert head is not None
    assert head.kind is Kind.CONSTANT
    found = head.predict(np.zeros((2, 6), np.float32)).probabilities
    rest = 1 / (count + 2) / 2
    np.testing.assert_allclose(found, [[1 - 2 * rest, rest, rest]] * 2, rtol=1e-5)
    assert answers(head, points[:1])[0].choices == (CLASSES[0],)
    assert "label some of another class" in head.report.remarks[0]
    assert head.report.scores == {}
    assert head.report.calibration_error_after is None


def test_a_config_with_one_value_only_is_not_certain_either() -> None:
    points, _ = clouds(8, classes=1)

    head = compete(points, [frozenset({"cell"})] * 8, ("cell",), multiple=False, seed=0)

    assert head is not None
    assert answers(head, points[:1]) == [Decision(choices=("cell",), score=pytest.approx(0.9))]


def test_two_items_of_two_classes_make_a_head_that_is_not_sure() -> None:
    points, of = clouds((1, 1), classes=2, apart=20)

    head = compete(points, one_each(of), CLASSES, multiple=False, seed=0)

    assert head is not None
    assert head.report.folds == 2
    assert head.predict(points).probabilities.max() < 0.6


def test_classes_with_one_example_are_named_in_a_remark() -> None:
    points, of = clouds((10, 10, 1))

    head = compete(points, one_each(of), CLASSES, multiple=False, seed=0)

    assert head is not None
    assert "'" not in head.report.remarks[0]
    assert CLASSES[2] in head.report.remarks[0]
    assert head.predict(points).probabilities.shape == (21, 3)


def test_fewer_items_than_folds_are_left_out_one_by_one() -> None:
    points, of = clouds((2, 2), classes=2, apart=20)

    head = compete(points, one_each(of), CLASSES[:2], multiple=False, seed=0)

    assert head is not None
    assert head.report.folds == 4
    assert head.report.scores[head.kind] == 1
    assert [a.choices[0] for a in answers(head, points)] == [CLASSES[n] for n in of]


def test_equal_items_with_different_labels_are_a_coin_toss() -> None:
    points = np.zeros((6, 4), np.float32)

    head = compete(points, one_each(np.arange(6) % 2), CLASSES[:2], multiple=False, seed=0)

    assert head is not None
    assert head.report.folds == 0
    assert head.predict(points).probabilities == pytest.approx(0.5, abs=1e-3)
    assert "could not be compared" in head.report.remarks[0]


def test_copies_of_an_item_do_not_help_to_recognise_it() -> None:
    random = np.random.default_rng(0)
    points = np.repeat(random.normal(size=(40, 8)), 5, axis=0).astype(np.float32)
    of = np.repeat(random.integers(0, 2, 40), 5)  # nothing to learn

    head = compete(points, one_each(of), CLASSES[:2], multiple=False, seed=0)

    assert head is not None
    assert max(head.report.scores.values()) < 0.75


def test_items_of_one_group_are_scored_together() -> None:
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(20), 10)  # crops of one image look alike, and so are their labels
    points = (3 * random.normal(size=(20, 8))[images] + random.normal(size=(200, 8))).astype("f4")
    of = (np.arange(20) % 2)[images]

    def best(groups: list[int] | None) -> float:
        head = compete(points, one_each(of), CLASSES[:2], multiple=False, seed=0, groups=groups)
        assert head is not None
        return max(head.report.scores.values())

    assert best(None) > 0.95
    assert best(images.tolist()) < 0.8


def test_classes_that_nobody_used_share_what_laplace_leaves_them() -> None:
    points, of = clouds(20, classes=2)
    classes = (*CLASSES[:2], "never", "neither")

    head = compete(points, one_each(of), classes, multiple=False, seed=0)

    assert head is not None
    found = head.predict(points).probabilities
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found[:, 2:] > 0).all()
    assert found[:, 2:].max() < 0.05
    assert head.report.items_per_class["never"] == 0


def test_labels_that_the_config_no_longer_offers_are_left_out_and_counted() -> None:
    points, of = clouds(20)

    head = compete(points, one_each(of), CLASSES[:2], multiple=False, seed=0)

    assert head is not None
    assert head.report.left_out == 20
    assert head.report.items == 40
    assert "no longer offers" in head.report.remarks[-1]


# a multiple choice


def several(of: Numbers) -> list[frozenset[str]]:
    """Return labels of a multiple choice: the first class has both of the first values."""
    sets = (frozenset(CLASSES[:2]), frozenset({CLASSES[1]}), frozenset[str]())
    return [sets[number] for number in of.tolist()]


def test_each_value_of_a_multiple_choice_is_answered_by_itself() -> None:
    points, of = clouds(40)
    others, truth = clouds(30, seed=1)

    head = compete(points, several(of), CLASSES, multiple=True, seed=0)

    assert head is not None
    found = [frozenset(answer.choices) for answer in answers(head, others)]
    assert np.mean([a == b for a, b in zip(found, several(truth), strict=True)]) > 0.9
    assert head.report.metric == "macro F1"
    assert head.predict(points).probabilities[:, 2] == pytest.approx(1 / 122, rel=1e-4)


def test_a_value_that_every_item_has_is_answered_by_laplace() -> None:
    points, of = clouds(10, classes=2)
    labels = [frozenset({"always"}) | ({"egg"} if n else set()) for n in of.tolist()]

    head = compete(points, labels, ("always", "egg"), multiple=True, seed=0)

    assert head is not None
    assert head.predict(points).probabilities[:, 0] == pytest.approx(21 / 22, rel=1e-5)


def test_multiple_choices_that_are_all_the_same_are_constant_and_said_so() -> None:
    points, _ = clouds(3)

    head = compete(points, [frozenset(CLASSES[:2])] * 9, CLASSES, multiple=True, seed=0)

    assert head is not None
    assert head.kind is Kind.CONSTANT
    assert answers(head, points)[0].choices == CLASSES[:2]
    assert "label some that differ" in head.report.remarks[0]


def test_only_the_unknown_value_makes_an_item_of_several_be_left_out() -> None:
    points, of = clouds(10)
    labels = several(of)
    labels[0] = labels[0] | {"removed"}

    head = compete(points, labels, CLASSES, multiple=True, seed=0)

    assert head is not None
    assert (head.report.left_out, head.report.items) == (1, 29)


# decisions


def test_a_single_choice_is_the_likeliest_class_or_none_when_unsure() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.9, 0.1, 0.0]], np.float32)

    found = decide(probabilities, CLASSES, multiple=False, unsure_below=0.6)
    always = decide(probabilities, CLASSES, multiple=False)

    assert [answer.choices for answer in found] == [(), (), (CLASSES[0],)]
    assert [answer.choices for answer in always] == [(CLASSES[0],), (), (CLASSES[0],)]
    assert [answer.score for answer in found] == pytest.approx([0.5, 0.4, 0.9])


def test_a_multiple_choice_is_all_that_is_likelier_than_not() -> None:
    probabilities = np.array([[0.9, 0.7, 0.2], [0.1, 0.2, 0.05], [0.5, 0.9, 0.9]], np.float32)

    found = decide(probabilities, CLASSES, multiple=True, unsure_below=0.6)

    assert [answer.choices for answer in found] == [CLASSES[:2], (), ()]
    assert [answer.score for answer in found] == pytest.approx([0.7, 0.8, 0.5])


def test_no_classes_are_no_answer() -> None:
    found = decide(np.zeros((2, 0), np.float32), (), multiple=True)

    assert found == [Decision(choices=(), score=0.0)] * 2


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=1, max_size=14),
    st.booleans(),
    st.integers(0, 2),
    st.booleans(),
)
def test_any_few_labels_make_valid_probabilities(
    labels: list[set[int]], multiple: bool, seed: int, clustered: bool
) -> None:
    classes = ("a", "b,c", "d/e")  # the fourth is no longer offered
    points = np.random.default_rng(seed).integers(-1, 2, (len(labels), 3)).astype(np.float32)
    rows = np.arange(len(labels)) % 4 - 1

    head = compete(
        points,
        [frozenset([*classes, "gone"][number] for number in label) for label in labels],
        classes,
        multiple=multiple,
        seed=seed,
        clusters=ItemClusters(rows=rows, count=3) if clustered else None,
    )

    usable = [label for label in labels if 3 not in label and (multiple or len(label) == 1)]
    assert (head is None) == (not usable)
    if head is None:
        return
    found = head.predict(points, rows).probabilities
    assert found.shape == (len(labels), 3)
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    if not multiple:
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert head.report.items == len(usable)


# the kinds


def examples(points: Points, of: Numbers, *, classes: int, independent: bool = False) -> Examples:
    """Return items of single choices."""
    return Examples(
        embeddings=points,
        targets=np.eye(classes, dtype=bool)[of],
        groups=np.arange(len(of)),
        clusters=of % 2,
        centres=3,
        independent=independent,
    )


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", [Kind.LOGISTIC, Kind.NEIGHBOURS, Kind.MLP])
def test_every_kind_scores_the_true_class_highest(
    kind: Kind, classes: int, independent: bool
) -> None:
    points, of = clouds(30, classes=classes, apart=8.0)
    some = examples(points, of, classes=classes, independent=independent)

    model = competitors(some, seed=0)[kind](some, 0)

    scores = model.scores(Embedded(embeddings=points, clusters=None))
    assert scores.shape == (len(of), classes)
    assert np.mean(np.argmax(scores, axis=1) == of) > 0.97
    if independent:
        assert np.mean((scores > 0) == some.targets) > 0.97


def test_logistic_regression_is_the_same_with_more_numbers_than_items() -> None:
    random = np.random.default_rng(0)
    points, of = clouds(12)
    turned = np.linalg.qr(random.normal(size=(50, 50)))[0][:6].astype(np.float32)
    seen = Embedded(embeddings=points, clusters=None)
    seen_wide = Embedded(embeddings=points @ turned, clusters=None)

    narrow = fit_logistic(examples(points, of, classes=3), 0, inverse_penalty=1.0)
    wide = fit_logistic(examples(points @ turned, of, classes=3), 0, inverse_penalty=1.0)

    assert wide.weights.shape == (3, 50)
    np.testing.assert_allclose(wide.scores(seen_wide), narrow.scores(seen), atol=1e-2)


@pytest.mark.parametrize("cosine", [False, True])
def test_neighbours_are_those_that_are_nearest(cosine: bool) -> None:
    points = np.array([[1, 0], [3, 0.1], [0, 1], [0.1, 3]], np.float32)
    some = examples(points, np.array([0, 1, 0, 1]), classes=2)

    model = fit_neighbours(some, 0, neighbours=1, cosine=cosine)

    asked = np.array([[9, 0], [0, 1.5]], np.float32)
    found = np.argmax(model.scores(Embedded(embeddings=asked, clusters=None)), axis=1)
    assert found.tolist() == ([0, 0] if cosine else [1, 0])


def test_a_vector_of_length_zero_has_neighbours_too() -> None:
    points, of = clouds(5)
    model = fit_neighbours(examples(points, of, classes=3), 0, neighbours=3, cosine=True)

    nowhere = Embedded(embeddings=np.zeros((1, 6), np.float32), clusters=None)
    assert np.isfinite(model.scores(nowhere)).all()


def test_the_cluster_table_says_nothing_of_clusters_that_disagree() -> None:
    some = Examples(
        embeddings=np.zeros((8, 2), np.float32),
        targets=np.eye(2, dtype=bool)[[0, 0, 0, 1, 0, 1, 1, 1]],
        groups=np.arange(8),
        clusters=np.array([0, 0, 0, 0, 1, 1, 2, -1]),
        centres=4,
        independent=False,
    )

    model = fit_cluster_table(some, 0)

    scores = model.scores(
        Embedded(embeddings=np.zeros((5, 2), np.float32), clusters=np.array([0, 1, 2, 3, -1]))
    )
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    half = [0.5, 0.5]  # a tie, one label only, no label, no cluster
    np.testing.assert_allclose(shares, [[4 / 6, 2 / 6], half, half, half, half], rtol=1e-6)


def test_a_network_of_one_yes_or_no_is_learned() -> None:
    points, of = clouds(40, classes=2, apart=8.0)
    some = Examples(
        embeddings=points,
        targets=(of == 1)[:, None],
        groups=np.arange(len(of)),
        clusters=None,
        centres=0,
        independent=True,
    )

    model = fit_mlp(some, 0)

    scores = model.scores(Embedded(embeddings=points, clusters=None))
    assert np.mean((scores[:, 0] > 0) == (of == 1)) > 0.97


SERVING = """
import sys
import ml_backend.engines.classifier, ml_backend.engines.classifier_file
import ml_backend.engines.clustering, ml_backend.engines.heads, ml_backend.engines.embedding_cache
print(sorted({name.split(".")[0] for name in sys.modules} & {"sklearn", "torch", "joblib"}))
"""


def test_serving_imports_neither_scikit_learn_nor_torch() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SERVING], capture_output=True, check=True, text=True
    )

    assert found.stdout.strip() == "[]"
