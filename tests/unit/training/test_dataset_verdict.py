"""A network trained on a dataset is compared, told of, and served by nobody."""

from __future__ import annotations

import pytest

from ml_backend.learning import Promotion
from ml_backend.training.dataset_verdict import judge_for_dataset
from ml_backend.training.gate import Verdict
from ml_backend.training.scoring import ImageScore


def scores(mean: float, images: int = 6, objects: int = 20) -> list[ImageScore]:
    return [
        ImageScore(
            task_id=task,
            annotation_ids=(task,),
            ap50=mean,
            ap75=mean,
            ap90=mean,
            objects=objects,
            found=objects,
        )
        for task in range(images)
    ]


def judged(candidate: float, base: float, images: int = 6) -> Verdict:
    one, other = scores(candidate, images), scores(base, images)
    return judge_for_dataset(one, other, other, Promotion.ALWAYS)


@pytest.mark.parametrize(("candidate", "base"), [(0.9, 0.2), (0.2, 0.9)])
def test_nothing_is_ever_promoted(candidate: float, base: float) -> None:
    assert not judged(candidate, base).promote


def test_a_better_one_is_said_to_be_better() -> None:
    verdict = judged(0.9, 0.2)

    assert verdict.sentence == (
        "It is better than the network that it was trained from: mean AP 0.900, before 0.200, on 6 "
        "held-out images with 120 objects."
    )
    assert verdict.numbers["passed"]


def test_a_worse_one_is_told_of_with_the_reason() -> None:
    verdict = judged(0.2, 0.9)

    assert "was not shown to be better" in verdict.sentence
    assert "0.700 worse than the base network" in verdict.sentence
    assert not verdict.numbers["passed"]


def test_without_held_out_images_nobody_can_tell() -> None:
    verdict = judged(0.9, 0.2, images=0)

    assert "no image is held out" in verdict.sentence
    assert "nothing could be compared" in verdict.sentence
