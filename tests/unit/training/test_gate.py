"""When a candidate is better than what is served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ml_backend.learning import Promotion
from ml_backend.training.gate import LEAST_PRECISION, Verdict, judge, low_quantile
from ml_backend.training.scoring import ImageScore

unit = st.floats(0, 1)
triples = st.tuples(unit, unit, unit).map(lambda three: tuple(sorted(three, reverse=True)))
# of images: their objects, then what three networks score there
tables = st.lists(st.tuples(st.sampled_from([0, 40]), triples, triples, triples), max_size=9)
Row = tuple[int, tuple[float, ...], tuple[float, ...], tuple[float, ...]]
near_zero = st.tuples(*[st.floats(0, 0.049)] * 3)


def scores(
    values: Sequence[float | Sequence[float]],
    *,
    objects: int | Sequence[int] = 40,
    accepted: bool = False,
) -> list[ImageScore]:
    """Return the scores of images, each given as its AP or its three APs."""
    counts = [objects] * len(values) if isinstance(objects, int) else objects
    return [
        ImageScore(
            task_id=number,
            annotation_ids=(number,),
            ap50=three[0],
            ap75=three[1],
            ap90=three[2],
            objects=counts[number],
            found=counts[number],
            accepted=accepted,
        )
        for number, value in enumerate(values)
        for three in [[value] * 3 if isinstance(value, float) else value]
    ]


def verdict(
    candidate: Sequence[float],
    active: Sequence[float],
    base: Sequence[float] | None = None,
    *,
    promotion: Promotion = Promotion.AUTO,
    objects: int | Sequence[int] = 40,
) -> Verdict:
    return judge(
        scores(candidate, objects=objects),
        scores(active, objects=objects),
        scores(active if base is None else base, objects=objects),
        promotion,
    )


def networks_of(table: Sequence[Row]) -> list[list[ImageScore]]:
    """Return the scores of three networks on the same images."""
    objects = [row[0] for row in table]
    return [scores([row[index] for row in table], objects=objects) for index in (1, 2, 3)]


def test_a_clear_rise_is_promoted_with_the_numbers() -> None:
    said = verdict([0.6] * 5, [0.5] * 5, [0.4] * 5)

    assert said.promote
    assert "Promoted" in said.sentence
    assert "0.600" in said.sentence
    assert "0.500" in said.sentence
    assert said.numbers["rise"] == pytest.approx(0.1)
    assert said.numbers["rise_over_base"] == pytest.approx(0.2)
    assert said.numbers["candidate"]["ap75"] == pytest.approx(0.6)
    assert said.numbers["rule"]["least_rise"] == 0.01


@pytest.mark.parametrize(
    ("candidate", "promoted"), [(0.51, True), (0.509, False), (0.5, False), (0.4, False)]
)
def test_a_rise_of_a_hundredth_is_enough_and_less_is_not(candidate: float, promoted: bool) -> None:
    assert verdict([candidate] * 6, [0.5] * 6).promote is promoted


def test_one_that_falls_below_the_base_is_kept() -> None:
    said = verdict([0.5] * 6, [0.4] * 6, [0.55] * 6)

    assert not said.promote
    assert "0.050 worse than the base network" in said.sentence


def test_a_rise_that_hangs_on_one_image_is_kept() -> None:
    said = verdict([1.0, 0.3, 0.3, 0.3, 0.3, 0.3], [0.2, 0.4, 0.4, 0.4, 0.4, 0.4])

    assert said.numbers["rise"] > 0.01
    assert said.numbers["low_quantile"] < -0.01
    assert not said.promote
    assert "chance" in said.sentence


@pytest.mark.parametrize(
    ("images", "objects", "candidate", "promoted"),
    [
        (1, 30, 0.55, True),
        (1, 29, 0.9, False),
        (4, 8, 0.55, True),  # 32 in all
        (4, 7, 0.9, False),  # 28 in all
        (4, 30, 0.549, False),
        (5, 1, 0.51, True),
    ],
)
def test_few_images_take_thirty_objects_and_a_larger_rise(
    images: int, objects: int, candidate: float, promoted: bool
) -> None:
    said = verdict([candidate] * images, [0.5] * images, objects=objects)

    assert said.promote is promoted
    assert said.numbers["few_images"] is (images < 5)
    assert ("few images" in said.sentence) is (images < 5)


@pytest.mark.parametrize("promotion", list(Promotion))
@given(candidate=st.lists(near_zero, max_size=8), other=near_zero, empty=st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_one_that_finds_next_to_nothing_is_never_promoted_also_where_the_base_finds_nothing(
    promotion: Promotion,
    candidate: list[tuple[float, ...]],
    other: tuple[float, ...],
    empty: int,
) -> None:
    assume(candidate)
    objects = [0] * empty + [40] * len(candidate)
    right = [1.0] * empty  # where there is nothing, and it finds nothing
    finds_nothing = scores([*right, *candidate], objects=objects)

    for served in ([0.0] * empty, right):
        nothing = scores([*served, *[0.0] * len(candidate)], objects=objects)
        assert not judge(finds_nothing, nothing, nothing, promotion).promote
        low = scores([*served, *[other] * len(candidate)], objects=objects)
        assert not judge(finds_nothing, low, low, promotion).promote


def test_one_that_finds_nothing_is_not_better_for_the_images_without_objects() -> None:
    said = verdict([1.0] * 8 + [0.0] * 2, [0.0] * 8 + [0.4] * 2, objects=[0] * 8 + [40] * 2)

    assert said.numbers["rise"] > 0.5
    assert said.numbers["ap50_where_objects_are"] == 0
    assert not said.promote
    assert "finds next to nothing" in said.sentence


@pytest.mark.parametrize(
    ("promotion", "promoted"), [(Promotion.AUTO, False), (Promotion.ALWAYS, True)]
)
def test_images_without_objects_alone_cannot_tell_what_a_network_finds(
    promotion: Promotion, promoted: bool
) -> None:
    said = verdict([1.0] * 6, [0.5] * 6, objects=0, promotion=promotion)

    assert said.promote is promoted
    assert "no held-out image has objects" in said.sentence
    assert said.numbers["ap50_where_objects_are"] is None


def test_of_several_annotations_those_with_objects_tell_what_is_found() -> None:
    empty, outlined = scores([1.0, 0.0], objects=[0, 40])
    candidate = [empty, replace(outlined, task_id=empty.task_id)]
    low = [replace(one, ap50=0.0, ap75=0.0, ap90=0.0) for one in candidate]

    said = judge(candidate, low, low, Promotion.ALWAYS)

    assert said.numbers["ap50_where_objects_are"] == 0
    assert not said.promote


@given(table=tables, image=st.integers(0, 8), raised=triples)
@settings(max_examples=60, deadline=None)
def test_a_candidate_that_does_better_on_an_image_is_not_refused_for_it(
    table: list[Row], image: int, raised: tuple[float, ...]
) -> None:
    assume(image < len(table))
    candidate, active, base = networks_of(table)
    better = list(candidate)
    one = better[image]
    better[image] = replace(
        one,
        ap50=max(one.ap50, raised[0]),
        ap75=max(one.ap75, raised[1]),
        ap90=max(one.ap90, raised[2]),
    )

    before = judge(candidate, active, base, Promotion.AUTO)
    after = judge(better, active, base, Promotion.AUTO)

    assert after.promote or not before.promote


@given(table=tables, promotion=st.sampled_from(Promotion))
@settings(max_examples=60, deadline=None)
def test_what_is_promoted_keeps_every_rule(table: list[Row], promotion: Promotion) -> None:
    candidate, active, base = networks_of(table)
    said = judge(candidate, active, base, promotion)

    assert said.sentence.endswith(".")
    json.dumps(dict(said.numbers), allow_nan=False)
    if promotion is Promotion.NEVER:
        assert not said.promote
    found = [row[1][0] for row in table if row[0]]
    if said.promote and found:
        assert np.mean(found) >= LEAST_PRECISION - 1e-8
    if said.promote and promotion is Promotion.AUTO:
        assert found
        few = len(table) < 5
        assert said.numbers["rise"] >= (0.05 if few else 0.01) - 1e-8
        assert said.numbers["rise_over_base"] >= -1e-8
        assert said.numbers["low_quantile"] >= -0.01 - 1e-8
        assert not few or said.numbers["objects"] >= 30


def test_images_that_are_a_networks_own_predictions_do_not_count_and_are_told() -> None:
    active = scores([0.99, 0.3, 0.3, 0.3, 0.3, 0.3])
    active[0] = replace(active[0], accepted=True)
    candidate = scores([0.5] * 6)

    said = judge(candidate, active, scores([0.2] * 6), Promotion.AUTO)

    assert said.promote
    assert said.numbers["images"] == 5
    assert said.numbers["accepted_images"] == 1
    assert said.numbers["rise"] == pytest.approx(0.2)
    assert "1 held-out image does not count" in said.sentence


def test_only_accepted_images_cannot_tell_anything() -> None:
    said = judge(
        scores([0.9] * 6), scores([0.2] * 6, accepted=True), scores([0.2] * 6), Promotion.AUTO
    )

    assert not said.promote
    assert "annotate some images by hand" in said.sentence
    assert "6 held-out images do not count" in said.sentence


def test_the_annotations_of_a_task_weigh_one_together() -> None:
    twice = [
        replace(one, annotation_ids=(annotation,))
        for one in scores([0.9])
        for annotation in range(9)
    ]
    once = [replace(one, task_id=1, annotation_ids=(99,)) for one in scores([0.1])]
    low = [replace(one, ap50=0.2, ap75=0.2, ap90=0.2) for one in (*twice, *once)]

    said = judge([*twice, *once], low, low, Promotion.AUTO)

    assert said.numbers["images"] == 2
    assert said.numbers["candidate"]["mean"] == pytest.approx(0.5)


def test_without_a_held_out_image_nothing_is_promoted_unless_the_project_always_does() -> None:
    assert not verdict([], []).promote
    assert "annotate at least three images" in verdict([], []).sentence
    assert verdict([], [], promotion=Promotion.ALWAYS).promote


def test_a_project_may_always_or_never_promote_and_is_told_what_the_gate_says() -> None:
    worse = verdict([0.4] * 6, [0.5] * 6, promotion=Promotion.ALWAYS)
    better = verdict([0.6] * 6, [0.5] * 6, promotion=Promotion.NEVER)

    assert worse.promote
    assert "although it is 0.100 worse" in worse.sentence
    assert not better.promote
    assert "would have passed" in better.sentence
    assert not worse.numbers["passed"]
    assert better.numbers["passed"]


def test_scores_of_different_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different images"):
        judge(scores([0.5] * 3), scores([0.5] * 2), scores([0.5] * 3), Promotion.AUTO)


def test_a_score_that_is_no_number_is_not_promoted() -> None:
    nothing = scores([float("nan")] * 6)

    assert not judge(nothing, scores([0.1] * 6), scores([0.1] * 6), Promotion.ALWAYS).promote


def test_the_quantile_is_the_same_each_time_and_lies_below_the_mean() -> None:
    differences = np.random.default_rng(1).normal(0.05, 0.1, 20)

    assert low_quantile(differences) == low_quantile(differences)
    # the mean of 20 has a standard deviation of about 0.1 / sqrt(20); its 5 % lie 1.645 below
    expected = differences.mean() - 1.645 * differences.std() / np.sqrt(20)
    assert low_quantile(differences) == pytest.approx(expected, abs=0.006)
