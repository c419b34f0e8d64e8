"""The images of one cluster side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ml_backend.service.contact_sheet import GAP, MARGIN, TOP, contact_sheet

Picture = npt.NDArray[np.uint8]
RED, GREEN = (255, 0, 0), (0, 255, 0)


def crop(height: int, width: int, colour: tuple[int, int, int] = RED) -> Picture:
    """Return (height, width, 3) uint8 of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def drawn(
    thumbnails: Sequence[npt.NDArray[Any]], captions: Sequence[str] | None = None, **more: Any
) -> Picture:
    """Return the sheet, (Y, X, 3) uint8."""
    given = [""] * len(thumbnails) if captions is None else captions
    content = contact_sheet(thumbnails, given, **{"title": "cluster 3", **more})
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def size_of(picture: Picture, colour: tuple[int, int, int]) -> tuple[int, int]:
    """Return height and width of the area of that colour."""
    rows, columns = np.nonzero((picture == np.array(colour, np.uint8)).all(axis=2))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_crops_keep_their_proportions_and_fill_their_cells() -> None:
    height, width = size_of(drawn([crop(20, 80)], cell=130), RED)

    assert width == 128  # the cell without the hairline around the crop
    assert height == 32


def test_a_common_scale_shows_which_crop_is_larger() -> None:
    both = [crop(100, 100, RED), crop(25, 25, GREEN)]

    alike, true = drawn(both), drawn(both, common_scale=True)

    assert size_of(alike, RED) == size_of(alike, GREEN)
    assert size_of(true, RED)[0] == pytest.approx(4 * size_of(true, GREEN)[0], abs=3)


def test_a_common_scale_comes_with_a_bar() -> None:
    crops = [crop(100, 100)]
    with_bar, without = drawn(crops, common_scale=True), drawn(crops)

    dark = (with_bar != without).any(axis=2)

    assert dark.sum() > 100
    # 50 px of the crop, at 132 px per 100
    assert (dark.sum(axis=1) >= 60).sum() == pytest.approx(3, abs=1)


def test_images_stand_in_the_order_given_row_by_row() -> None:
    crops = [crop(9, 9, (0, 0, 10 * number)) for number in range(5)]

    sheet = drawn(crops, columns=3, cell=100)

    row = 100 + GAP  # without captions
    middles = [(TOP + at // 3 * row + 50, MARGIN + at % 3 * (100 + GAP) + 50) for at in range(5)]
    assert [int(sheet[y, x, 2]) for y, x in middles] == [0, 10, 20, 30, 40]


def test_captions_make_room_for_themselves() -> None:
    heights = [
        drawn([crop(9, 9)], [caption]).shape[0]
        for caption in ("", "task 1", "task 1\nround", "task 1\nround\nmore\nand more")
    ]

    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_the_footer_says_how_many_there_are() -> None:
    crops = [crop(9, 9)] * 3

    assert (drawn(crops, total=3) == drawn(crops)).all()
    assert (drawn(crops, total=50) != drawn(crops)).any()


def test_without_images_the_sheet_says_so() -> None:
    sheet = drawn([], total=0)

    middle = sheet[TOP:-60]
    assert 50 < (middle.min(axis=2) < 200).sum() < 4000


@pytest.mark.parametrize(
    "thumbnail",
    [
        np.zeros((5, 7), np.uint8),
        np.zeros((5, 7, 1), np.uint8),
        np.zeros((5, 7, 2), np.uint8),
        np.zeros((5, 7, 5), np.uint8),
        np.arange(35, dtype=np.uint16).reshape(5, 7, 1),
        np.full((5, 7, 3), np.nan, np.float32),
        np.zeros((0, 7, 1), np.uint8),
        np.zeros((1, 900, 1), np.uint8),
        np.zeros((5, 7, 1), bool),
    ],
)
@pytest.mark.parametrize("common_scale", [False, True])
def test_any_image_makes_a_sheet(thumbnail: npt.NDArray[Any], common_scale: bool) -> None:
    assert drawn([thumbnail, crop(4, 4)], common_scale=common_scale).shape[1] >= 300


def test_each_thumbnail_needs_its_caption() -> None:
    with pytest.raises(ValueError, match="2 thumbnails have 1 captions"):
        contact_sheet([crop(4, 4), crop(4, 4)], ["one"], title="cluster 3")


@settings(deadline=None, max_examples=25)
@given(caption=st.text(st.characters(), max_size=80), title=st.text(st.characters(), max_size=300))
def test_any_text_makes_a_sheet(caption: str, title: str) -> None:
    assert contact_sheet([crop(4, 4)], [caption], title=title).startswith(b"\x89PNG")
