"""When a training is ended because its network finds nothing any more."""

from __future__ import annotations

import pytest

from ml_backend.training.collapse import LOOKS, CollapseWatch


def verdict(watch: CollapseWatch, found: list[int], done: float = 0.9) -> str | None:
    """Return what the last of several looks says."""
    said = None
    for number in found:
        said = watch.look(number, done)
    return said


def watch(base_found: int = 100, outlined: int = 90) -> CollapseWatch:
    return CollapseWatch(base_found=base_found, outlined=outlined)


def test_one_that_finds_far_fewer_is_ended_with_the_likely_reasons() -> None:
    said = verdict(watch(), [5] * LOOKS)

    assert said is not None
    assert "5 objects" in said
    assert "100" in said
    assert "90" in said
    assert "model_roi" in said
    assert "learning rate" in said


@pytest.mark.parametrize("found", [[5] * (LOOKS - 1), [5] * (LOOKS - 1) + [80, 5, 5]])
def test_one_that_loses_objects_for_a_while_goes_on(found: list[int]) -> None:
    assert verdict(watch(), found) is None


def test_the_beginning_of_a_training_says_nothing() -> None:
    assert verdict(watch(), [0] * LOOKS, done=0.2) is None


def test_a_base_that_finds_nothing_is_no_measure() -> None:
    assert verdict(watch(base_found=3), [0] * LOOKS) is None


def test_a_base_that_finds_what_nobody_outlined_is_no_measure() -> None:
    assert verdict(watch(base_found=500, outlined=40), [38] * LOOKS) is None
