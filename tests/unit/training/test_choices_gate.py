"""Which controls get what was learned of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from ml_backend.learning import Promotion
from ml_backend.training.choices_gate import (
    ControlTrial,
    Marks,
    commonest_answer,
    judge_control,
    marks_of,
    score_of,
    takes_candidate,
)

CHOICES = ("A", "B", "C")


def one_each(indices: list[int]) -> Marks:
    return np.eye(len(CHOICES), dtype=np.bool_)[np.array(indices, int)]


def trial(
    truth: list[int],
    candidate: list[int],
    active: list[int] | None = None,
    *,
    trained_on: int = 40,
    cross_validated: float | None = 0.9,
    claims: bool = True,
) -> ControlTrial:
    return ControlTrial(
        name="kind",
        multiple=False,
        truth=one_each(truth),
        candidate=one_each(candidate),
        active=None if active is None else one_each(active),
        commonest=one_each([0] * len(truth)),
        trained_on=trained_on,
        cross_validated=cross_validated,
        commonest_cross_validated=1 / 3,
        claims=claims,
    )


TRUTH = [0, 1, 2] * 6


def test_a_candidate_that_is_right_where_nothing_was_served_passes() -> None:
    verdict = judge_control(trial(TRUTH, TRUTH))

    assert verdict.passed
    assert verdict.numbers["candidate"] == 1.0
    assert "kind: better (balanced accuracy 1.000" in verdict.sentence


def test_a_candidate_that_always_gives_the_commonest_answer_is_not_taken() -> None:
    verdict = judge_control(trial(TRUTH, [0] * 18))

    assert not verdict.passed
    assert "commonest answer" in verdict.sentence


def test_a_candidate_that_is_as_good_as_what_is_served_is_not_taken() -> None:
    verdict = judge_control(trial(TRUTH, TRUTH, TRUTH))

    assert not verdict.passed
    assert "rise of +0.000" in verdict.sentence


def test_a_rise_by_one_image_of_few_may_be_chance() -> None:
    served = [0, 1, 2, 0, 1, 1]
    candidate = [0, 1, 2, 0, 0, 2]

    verdict = judge_control(trial([0, 1, 2, 0, 1, 2], candidate, served))

    assert not verdict.passed


def test_few_held_out_images_need_a_cross_validation_that_convinces() -> None:
    assert judge_control(trial([0, 1], [0, 1])).passed
    assert not judge_control(trial([0, 1], [0, 1], cross_validated=0.35)).passed
    assert not judge_control(trial([0, 1], [0, 1], trained_on=6)).passed
    assert not judge_control(trial([], [], cross_validated=None)).passed


def test_few_held_out_images_on_which_it_is_worse_than_what_is_served_refuse_it() -> None:
    verdict = judge_control(trial([0, 1], [1, 0], [0, 1]))

    assert not verdict.passed
    assert "worse than what is served" in verdict.sentence


def test_clusters_without_names_are_served_only_where_nothing_answers() -> None:
    assert judge_control(trial([], [], claims=False)).passed
    assert not judge_control(trial(TRUTH, TRUTH, TRUTH, claims=False)).passed


def test_a_person_has_the_last_word() -> None:
    good, bad = judge_control(trial(TRUTH, TRUTH)), judge_control(trial(TRUTH, [0] * 18))

    assert takes_candidate(good, Promotion.AUTO, claims=True)
    assert not takes_candidate(bad, Promotion.AUTO, claims=True)
    assert takes_candidate(bad, Promotion.ALWAYS, claims=True)
    assert not takes_candidate(bad, Promotion.ALWAYS, claims=False)
    assert not takes_candidate(good, Promotion.NEVER, claims=True)


indices = st.lists(st.integers(0, 2), min_size=1, max_size=30)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(st.data(), indices)
def test_balanced_accuracy_is_that_of_scikit_learn(data: st.DataObject, truth: list[int]) -> None:
    answered = data.draw(st.lists(st.integers(0, 2), min_size=len(truth), max_size=len(truth)))

    ours = score_of(one_each(truth), one_each(answered), multiple=False)

    assert ours == pytest.approx(balanced_accuracy_score(truth, answered))


@given(st.data(), st.integers(1, 20))
def test_macro_f1_is_that_of_scikit_learn_over_the_choices_that_occur(
    data: st.DataObject, count: int
) -> None:
    marks = st.lists(
        st.lists(st.booleans(), min_size=3, max_size=3), min_size=count, max_size=count
    )
    truth, answered = (np.array(data.draw(marks), np.bool_) for _ in range(2))
    occurs = truth.any(axis=0)

    ours = score_of(truth, answered, multiple=True)

    if not occurs.any():
        assert ours == 0.0
    else:
        of_each = f1_score(truth, answered, average=None, zero_division=0.0)
        assert ours == pytest.approx(of_each[occurs].mean())


def test_the_commonest_answer_is_one_choice_or_all_that_most_images_have() -> None:
    training = marks_of([frozenset("A"), frozenset("AB"), frozenset("AB")], CHOICES)

    assert commonest_answer(training, 2, multiple=False).tolist() == [[True, False, False]] * 2
    assert commonest_answer(training, 1, multiple=True).tolist() == [[True, True, False]]
    assert commonest_answer(training[:0], 1, multiple=True).tolist() == [[True, False, False]]
