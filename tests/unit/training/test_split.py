"""Which groups are held out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ml_backend.learning import Side
from ml_backend.training.split import FEWEST_GROUPS, decide_sides, wanted_hold_out

groups = st.sets(st.text(max_size=8), max_size=40)


def held_out(sides: dict[str, Side]) -> set[str]:
    return {name for name, side in sides.items() if side is Side.HOLD_OUT}


@given(st.lists(groups, max_size=6))
def test_a_group_stays_on_its_side_whatever_comes_and_goes(sessions: list[set[str]]) -> None:
    known: dict[str, Side] = {}
    for present in sessions:
        sides = decide_sides(present, known)
        assert sides.keys() == present
        assert all(sides[name] is known[name] for name in present & known.keys())
        known |= sides


@given(groups)
def test_a_fifth_is_held_out(present: set[str]) -> None:
    count = len(held_out(decide_sides(present, {})))

    assert count == wanted_hold_out(len(present))
    if len(present) >= FEWEST_GROUPS:
        assert abs(count - len(present) / 5) <= 0.8  # at least one, and rounded
        assert count >= 1
    else:
        assert count == 0


@given(groups, groups)
def test_groups_that_come_later_never_raise_the_share_above_what_is_wanted(
    first: set[str], later: set[str]
) -> None:
    known = decide_sides(first, {})
    sides = decide_sides(first | later, known)

    wanted = wanted_hold_out(len(first | later))
    assert len(held_out(sides)) == max(wanted, len(held_out(known))) or not later - first


@given(groups)
def test_the_decision_does_not_depend_on_the_order(present: set[str]) -> None:
    assert decide_sides(sorted(present), {}) == decide_sides(sorted(present, reverse=True), {})


def test_at_least_one_of_three_groups_is_held_out() -> None:
    assert len(held_out(decide_sides(["a", "b"], {}))) == 0
    assert len(held_out(decide_sides(["a", "b", "c"], {}))) == 1


def test_the_third_group_is_held_out_when_the_first_two_have_been_trained_on() -> None:
    known = decide_sides(["a", "b"], {})

    assert held_out(decide_sides(["a", "b", "c"], known)) == {"c"}
