"""Covers are small, twice as wide as high, and show what was found in their right half."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ml_backend.service.cover import MOST_BYTES, draw_answer, draw_cover


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


@pytest.mark.parametrize("shape", [(256, 512), (300, 300), (64, 900), (400, 90)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_cover_is_twice_as_wide_as_high(shape: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (*shape, channels)).astype(np.uint16)
    cover = opened(draw_cover(pixels, np.zeros(shape, np.int32)))
    assert cover.shape[1] == 2 * cover.shape[0]


def test_noise_makes_a_smaller_picture_and_no_larger_file() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (512, 1024, 3)).astype(np.uint8)
    content = draw_cover(noise, np.zeros((512, 1024), np.int32))
    assert len(content) <= MOST_BYTES
    assert opened(content).shape[1] < 1024


def test_objects_are_coloured_on_the_right_only() -> None:
    labels = np.zeros((256, 512), np.int32)
    labels[100:140, 100:140], labels[100:140, 380:420] = 1, 2
    cover = opened(draw_cover(np.full((256, 512, 1), 9, np.uint8), labels)).astype(int)
    coloured = np.ptp(cover, axis=-1) > 20
    middle = cover.shape[1] // 2
    assert coloured[:, middle + 4 :].any()
    assert not coloured[:, : middle - 4].any()


def test_an_answer_is_dark_where_there_is_no_cell() -> None:
    answer = np.zeros((3, 20, 30), np.float32)
    answer[0], answer[2, :, :15], answer[2, :, 15:] = 5, -3, 3
    picture = opened(draw_answer(answer))
    assert picture.shape == (20, 30, 3)
    assert picture[:, :15].max() == 0
    assert picture[:, 15:].max() == 255
