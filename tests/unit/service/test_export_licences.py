"""A copy of weights is never given on under a laxer licence than theirs."""

from __future__ import annotations

import pytest

from ml_backend.errors import BadRequest
from ml_backend.service.licences import licence_of_copy


@pytest.mark.parametrize(
    ("weights", "asked", "licence"),
    [
        ("CC0-1.0", None, "CC0-1.0"),
        ("CC0-1.0", "mit", "MIT"),
        ("CC-BY-NC-4.0", None, "CC-BY-NC-4.0"),
        ("CC-BY-NC-4.0", "cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-SA-4.0"),
        ("MIT", "CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("unknown", "CC-BY-4.0", "CC-BY-4.0"),
    ],
)
def test_a_licence_that_asks_for_as_much_is_taken(
    weights: str, asked: str | None, licence: str
) -> None:
    assert licence_of_copy(weights, asked, name="mine") == licence


@pytest.mark.parametrize("asked", ["CC0-1.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0"])
def test_nothing_takes_the_conditions_off_cellpose_s_weights(asked: str) -> None:
    with pytest.raises(BadRequest, match=r"'cpsam'.*CC-BY-NC-4\.0"):
        licence_of_copy("CC-BY-NC-4.0", asked, name="cpsam")


def test_where_nobody_said_a_licence_a_person_must() -> None:
    with pytest.raises(BadRequest, match=r"'mine'.*name it"):
        licence_of_copy("unknown", None, name="mine")


def test_a_licence_that_is_not_known_is_named_in_the_refusal() -> None:
    with pytest.raises(BadRequest, match="'beerware' is not known"):
        licence_of_copy("CC0-1.0", "beerware", name="mine")
