"""A session's curves as JSON and as a picture."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ml_backend.learning import EpochPoint
from ml_backend.service.axes import Axis, epoch_ticks, text_of
from ml_backend.service.curves import (
    BLUE,
    GREEN,
    ORANGE,
    PIXELS,
    PURPLE,
    curves_json,
    curves_picture,
)

Picture = npt.NDArray[np.uint8]


def point(epoch: int, loss: float = 0.5, **more: object) -> EpochPoint:
    """Return a point of a curve."""
    return EpochPoint(
        **{"epoch": epoch, "step": 10 * epoch, "loss": loss, "learning_rate": 1e-3, **more}  # type: ignore[arg-type]
    )


def drawn(*points: EpochPoint) -> Picture:
    """Return the picture of a session, (Y, X, 3) uint8."""
    content = curves_picture(points, title="session 1")
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def share_of(picture: Picture, colour: tuple[int, int, int]) -> int:
    """Return how many pixels have that colour."""
    return int((picture == np.array(colour, np.uint8)).all(axis=2).sum())


def test_curves_are_keyed_by_epoch_and_empty_before_the_first() -> None:
    measured = point(2, 0.25, validation_loss=0.3, precision=(0.8, 0.5, 0.1), seconds=12.0)

    assert curves_json([]) == {}
    assert curves_json([point(1), measured]) == {
        "1": {
            "loss": 0.5,
            "lr": 1e-3,
            "val_loss": None,
            "step": 10,
            "seconds": 0.0,
            "ap50": None,
            "ap75": None,
            "ap90": None,
        },
        "2": {
            "loss": 0.25,
            "lr": 1e-3,
            "val_loss": 0.3,
            "step": 20,
            "seconds": 12.0,
            "ap50": 0.8,
            "ap75": 0.5,
            "ap90": 0.1,
        },
    }


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_ran_away_is_null_in_json(loss: float) -> None:
    values = orjson.loads(orjson.dumps(curves_json([point(1, loss, validation_loss=loss)])))

    assert (values["1"]["loss"], values["1"]["val_loss"]) == (None, None)


def test_the_picture_shows_each_curve_in_its_colour() -> None:
    measured = [
        point(epoch, 1 / epoch, validation_loss=1.2 / epoch, precision=(0.9, 0.6, 0.2))
        for epoch in range(1, 30)
    ]

    picture = drawn(*measured)

    for colour in (BLUE, ORANGE, GREEN, PURPLE):
        assert share_of(picture, colour) > 300


def test_what_was_never_measured_has_no_panel() -> None:
    without = drawn(*(point(epoch) for epoch in range(1, 9)))
    with_it = drawn(*(point(epoch, precision=(0.9, 0.6, 0.2)) for epoch in range(1, 9)))

    assert without.shape[0] < with_it.shape[0]
    assert share_of(without, GREEN) == 0
    assert share_of(without, ORANGE) == 0


def test_a_better_value_stands_higher() -> None:
    def height_of_precision(value: float) -> float:
        points = [point(epoch, precision=(0.0, value, 0.0)) for epoch in range(1, 9)]
        rows = np.nonzero((drawn(*points)[:, 100:800] == GREEN).all(axis=2).sum(axis=1) > 500)[0]
        return float(rows.mean())

    assert height_of_precision(0.9) < height_of_precision(0.5) < height_of_precision(0.1)


def test_before_the_first_epoch_there_is_a_picture_that_says_so() -> None:
    picture = drawn()

    assert (picture.min(axis=2) < 200).sum() > 0
    assert share_of(picture, BLUE) == 0


@settings(deadline=None, max_examples=40)
@given(
    losses=st.lists(st.floats() | st.sampled_from([0.0, -1.0, 1e-30, 1e30]), max_size=6),
    rates=st.floats(),
)
def test_any_numbers_make_a_picture(losses: list[float], rates: float) -> None:
    points = [
        point(epoch, loss, learning_rate=rates, validation_loss=loss, precision=(loss, 0.5, rates))
        for epoch, loss in enumerate(losses, start=1)
    ]

    assert curves_picture(points, title="x" * 500).startswith(b"\x89PNG")


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20))
def test_every_value_has_its_place_on_its_axis(values: list[float]) -> None:
    for axis in (Axis.of(values), Axis.from_zero(values)):
        assert axis.low < axis.high
        assert 1 <= len(axis.ticks) <= 9
        places = [axis.share(value) for value in sorted(values)]
        assert places == sorted(places)
        assert all(0 <= place <= 1 for place in places)


def test_losses_of_different_magnitudes_get_a_logarithmic_axis() -> None:
    assert Axis.of([0.001, 100.0]).logarithmic
    assert not Axis.of([0.1, 1.0]).logarithmic


@settings(deadline=None)
@given(first=st.integers(1, 50), count=st.integers(1, 5000))
def test_epochs_are_marked_with_whole_numbers_that_have_room(first: int, count: int) -> None:
    ticks = epoch_ticks(range(first, first + count)).ticks

    assert ticks[0] == first
    assert all(tick == int(tick) and first <= tick < first + count for tick in ticks)
    assert len(ticks) <= 12
    assert list(ticks) == sorted(set(ticks))


def test_numbers_are_written_short() -> None:
    assert [text_of(value) for value in (0.12345, 1e-4, 7.0, math.nan)] == [
        *("0.123", "0.0001", "7", "no number")
    ]


def test_scores_of_pixels_are_there_where_there_is_a_test_set() -> None:
    scored = point(2, pixels=(0.9, 0.8, 0.85, 0.74))

    curves = curves_json([point(1), scored])

    assert curves["1"]["pixel_iou"] is None
    assert [curves["2"][name] for name in PIXELS] == [0.9, 0.8, 0.85, 0.74]
    assert not set(PIXELS) & set(curves_json([point(1)])["1"])


def test_the_picture_of_a_test_set_has_a_panel_more() -> None:
    without = drawn(point(1), point(2))
    scored = drawn(point(1, pixels=(0.9, 0.8, 0.85, 0.7)), point(2, pixels=(0.9, 0.8, 0.85, 0.7)))

    assert scored.shape[0] > without.shape[0]
    assert share_of(scored, PURPLE) > 100 > share_of(without, PURPLE)
