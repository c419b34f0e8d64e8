"""Which tasks look half-finished."""

from __future__ import annotations

import pytest

from ml_backend.domain import Image
from ml_backend.training.unfinished import find_unfinished
from tests.annotations_of import annotated, squares


@pytest.mark.parametrize(
    ("outlined", "found_by_base", "is_named"),
    [(2, 10, True), (3, 10, False), (0, 9, False), (0, 10, True), (20, 10, False)],
)
def test_a_task_with_far_fewer_objects_than_the_base_finds_is_named(
    outlined: int, found_by_base: int, is_named: bool
) -> None:
    named = find_unfinished([annotated(squares())], [outlined], lambda _: found_by_base)

    assert [one.task_id for one in named] == ([1] if is_named else [])
    if is_named:
        assert f"{outlined} outlined" in named[0].sentence
        assert "model_roi" in named[0].sentence


def test_of_very_many_images_those_with_the_fewest_objects_are_looked_at() -> None:
    looked_at: list[str] = []

    def count(image: Image) -> int:
        looked_at.append(image.sha256)
        return 100

    images = [annotated(squares(), task_id=number) for number in range(1, 6)]
    named = find_unfinished(images, [9, 1, 8, 0, 7], count, most=2)

    assert looked_at == ["image 2", "image 4"]
    assert [one.task_id for one in named] == [2, 4]
