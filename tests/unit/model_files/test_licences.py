"""Licences of what was made from other weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.model_files.licences import never_laxer

KNOWN = (
    *("CC0-1.0", "MIT", "BSD-3-Clause", "Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-ND-4.0"),
    *("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0"),
)
LICENCES = st.sampled_from((*KNOWN, "unknown", "ask Ada", ""))


@pytest.mark.parametrize(
    ("licence", "parent", "expected"),
    [
        ("CC0-1.0", "CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("MIT", "CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("CC-BY-NC-4.0", "CC0-1.0", "CC-BY-NC-4.0"),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
        ("CC-BY-ND-4.0", "CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("CC-BY-NC-ND-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0"),
        ("cc-by-4.0", "CC-BY-4.0", "cc-by-4.0"),
        ("ask Ada", "CC0-1.0", "ask Ada"),
        ("ask Ada", "CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("CC0-1.0", "ask Ada", "ask Ada"),
        ("MIT", "unknown", "unknown"),
        ("unknown", "CC0-1.0", "unknown"),
    ],
)
def test_what_is_made_of_weights_asks_for_no_less(licence: str, parent: str, expected: str) -> None:
    assert never_laxer(licence, parent) == expected


@given(licence=LICENCES, parent=LICENCES)
def test_it_is_one_of_the_two_and_stays_so(licence: str, parent: str) -> None:
    once = never_laxer(licence, parent)

    assert once in (licence, parent)
    assert never_laxer(once, parent) == once


@given(parent=st.sampled_from(KNOWN), licences=st.lists(st.sampled_from(KNOWN)))
def test_what_one_in_a_line_forbids_stays_forbidden(parent: str, licences: list[str]) -> None:
    current = parent
    for licence in licences:
        current = never_laxer(licence, current)

    for forbidden in ("-NC", "-ND"):
        assert (forbidden in parent) <= (forbidden in current)
