"""The diameter is found whatever the first look sees."""

from __future__ import annotations

import numpy as np
import pytest

from ml_backend.engines.scale import (
    Look,
    equivalent_diameters,
    estimate_scale,
    median_diameter,
)

NETWORK_DIAMETER = 22.0


class Microscope:
    """Sees objects of one true size as a network would that knows only its own."""

    def __init__(self, true: float, *, blind_beyond: float, pull: float = 0.0) -> None:
        self.true = true
        self.blind_beyond = blind_beyond  # factor off the network's diameter
        self.pull = pull  # 0..1, how far the network draws sizes towards its own
        self.looks: list[float] = []

    def __call__(self, scale: float) -> Look:
        self.looks.append(scale)
        shown = self.true * scale
        off = max(shown / NETWORK_DIAMETER, NETWORK_DIAMETER / shown)
        count = 0 if off > self.blind_beyond else 20
        seen = NETWORK_DIAMETER * (shown / NETWORK_DIAMETER) ** (1 - self.pull)
        return Look(
            scale=scale,
            diameters=np.full(count, seen),
            scores=np.full(count, 1 / off, np.float32),
        )


@pytest.mark.parametrize("true", [3.0, 6.0, 12.0, 22.0, 45.0, 70.0, 110.0])
@pytest.mark.parametrize("pull", [0.0, 0.3])
def test_the_scale_is_found_from_far_away(true: float, pull: float) -> None:
    look = Microscope(true, blind_beyond=3, pull=pull)

    estimate = estimate_scale(look, NETWORK_DIAMETER)

    assert estimate is not None
    assert estimate.scale * true == pytest.approx(NETWORK_DIAMETER, rel=0.3)
    assert estimate.diameter == pytest.approx(true, rel=0.3)
    assert len(look.looks) <= 7


def test_a_size_that_is_near_enough_needs_one_look() -> None:
    look = Microscope(25.0, blind_beyond=3)

    estimate = estimate_scale(look, NETWORK_DIAMETER)

    assert estimate is not None
    assert look.looks == [1.0]
    assert estimate.scale == 1.0
    assert estimate.diameter == pytest.approx(25.0)


def test_a_scale_that_was_tried_and_explained_less_is_not_taken() -> None:
    def texture(scale: float) -> Look:  # always finds specks smaller than the network's objects
        specks = int(100 / scale**2)
        return Look(
            scale=scale, diameters=np.full(specks, 9.0), scores=np.full(specks, 0.6, np.float32)
        )

    estimate = estimate_scale(texture, NETWORK_DIAMETER)

    assert estimate is not None
    assert estimate.scale == 1.0


def test_nothing_at_any_scale_is_none() -> None:
    assert estimate_scale(Microscope(22.0, blind_beyond=0), NETWORK_DIAMETER) is None


def test_a_median_diameter_is_that_of_a_disc_of_the_same_area() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[:10, :10], labels[20:24, 20:24] = 1, 2

    np.testing.assert_allclose(equivalent_diameters(labels), [11.284, 4.514], atol=1e-3)
    assert median_diameter(labels) == pytest.approx(7.899, abs=1e-3)
    assert median_diameter(np.zeros((4, 4), np.int32)) == 0
