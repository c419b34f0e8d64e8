"""Single objects, cut out of their image."""

from __future__ import annotations

import numpy as np

from ml_backend.imaging.cutouts import MARGIN, RIM, cut_out


def two_touching() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((40, 60), np.int32)
    labels[10:20, 10:20] = 1
    labels[10:30, 20:40] = 2
    pixels = np.full((40, 60, 1), 50, np.uint16)
    pixels[labels == 1] = 1000
    pixels[labels == 2] = 3000
    return pixels, labels


def test_each_object_is_alone_before_the_background() -> None:
    first, second = cut_out(*two_touching())

    assert set(np.unique(first)) == {50, 1000}
    assert set(np.unique(second)) == {50, 3000}
    assert (first == 1000).sum() == 100
    assert (second == 3000).sum() == 400


def test_a_cutout_is_as_large_as_its_object_and_a_margin() -> None:
    first, second = cut_out(*two_touching())

    assert first.shape == (10 + 2 * (RIM + MARGIN), 10 + 2 * (RIM + MARGIN), 1)
    assert second.shape == (20 + 2 * (RIM + MARGIN), 20 + 2 * (RIM + MARGIN), 1)
    assert first.dtype == np.uint16


def test_an_object_at_the_edge_keeps_what_there_is() -> None:
    labels = np.zeros((5, 5), np.int32)
    labels[0, 0] = 1

    (cutout,) = cut_out(np.ones((5, 5, 3), np.uint8), labels)

    assert cutout.shape == (5, 5, 3)


def test_where_nothing_is_free_the_object_is_all_there_is() -> None:
    (cutout,) = cut_out(np.full((4, 4, 1), 7, np.uint8), np.ones((4, 4), np.int32))

    assert (cutout == 7).all()


def test_an_image_without_objects_has_no_cutouts() -> None:
    assert list(cut_out(np.zeros((4, 4, 1)), np.zeros((4, 4), np.int32))) == []


def test_the_image_itself_is_left_as_it_is() -> None:
    pixels, labels = two_touching()
    before = pixels.copy()

    list(cut_out(pixels, labels))

    assert (pixels == before).all()
