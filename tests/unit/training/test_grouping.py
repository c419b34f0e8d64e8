"""Which images belong together, and that a picture that was held out stays so."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.domain import Image
from ml_backend.learning import LabelledTask, Side
from ml_backend.training.grouping import Groups, group_of, pixels_group

names = st.sampled_from(["plate 1", "plate 2", "plate 3", "plate 4"])
pictures = st.sampled_from([f"pixels:{number}" for number in range(8)])
members = st.lists(st.tuples(names | pictures, pictures), max_size=12)


def image(value: int, *, dtype: str = "uint8", name: str = "a") -> Image:
    return Image(pixels=np.full((4, 6, 1), value, dtype), sha256=name)


def test_the_same_pixels_are_one_group_whatever_file_they_came_in() -> None:
    assert pixels_group(image(1, name="a")) == pixels_group(image(1, name="b"))
    assert pixels_group(image(1)) != pixels_group(image(2))
    assert pixels_group(image(1)) != pixels_group(image(1, dtype="uint16"))


def test_a_field_of_the_task_names_the_group_where_it_is_filled() -> None:
    task = LabelledTask(task_id=1, data={"well": "A1", "empty": "", "list": [1]})

    assert group_of(task, "pixels:1", "well") == "well:A1"
    for field in (None, "empty", "missing", "list"):
        assert group_of(task, "pixels:1", field) == "pixels:1"


@given(members, members)
def test_a_picture_that_was_held_out_is_never_trained_on_under_another_group(
    first: list[tuple[str, str]], later: list[tuple[str, str]]
) -> None:
    known = Groups.of(first).sides({})
    sides = Groups.of(later).sides(known)

    held_out = {name for name, side in known.items() if side is Side.HOLD_OUT}
    for group, picture in later:
        if group not in known and picture in held_out:
            assert sides[group] is Side.HOLD_OUT
        assert picture not in held_out or sides[picture] is Side.HOLD_OUT
    assert all(sides[name] is known[name] for name in sides.keys() & known.keys())


def test_the_same_picture_in_two_groups_is_held_out_with_either() -> None:
    shared = [(f"plate {number}", "pixels:shared") for number in range(5)]

    sides = Groups.of(shared).sides({})

    assert Side.HOLD_OUT in {sides[group] for group, _ in shared}
    assert sides["pixels:shared"] is Side.HOLD_OUT
