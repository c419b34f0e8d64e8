"""Label images from files of any program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from ml_backend.errors import ImageDecodeError, ImageTooLarge
from ml_backend.training.mask_reading import Masks, read_masks, to_labels
from tests.dataset_folders import assert_same_objects, picture, write_seg

LABELS = picture(3)[1]
COUNT = int(LABELS.max())


def read(path: Path, most: int = 10**6) -> Masks:
    return read_masks(path, max_pixels=most)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.int32, np.int64, np.float32])
def test_tiff_of_any_number_type_is_read(tmp_path: Path, kind: Any) -> None:
    tifffile.imwrite(tmp_path / "m.tif", LABELS.astype(kind))

    masks = read(tmp_path / "m.tif")

    assert masks.labels.dtype == np.int32
    assert masks.objects == COUNT
    assert_same_objects(masks.labels, LABELS)


def test_a_tiff_of_one_plane_in_a_stack_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", LABELS[None].astype(np.uint16), imagej=True)

    assert_same_objects(read(tmp_path / "m.tif").labels, LABELS)


def test_the_colours_of_a_palette_are_not_the_numbers_of_objects(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(
        tmp_path / "m.tif", LABELS.astype(np.uint8), photometric="palette", colormap=colours
    )
    shown = PillowImage.fromarray(LABELS.astype(np.uint8), "P")
    shown.putpalette(list(range(255, -1, -1)) * 3)
    shown.save(tmp_path / "m.png")

    assert_same_objects(read(tmp_path / "m.tif").labels, LABELS)
    assert_same_objects(read(tmp_path / "m.png").labels, LABELS)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_is_read(tmp_path: Path, kind: Any) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), (LABELS * 20).astype(kind))

    assert_same_objects(read(tmp_path / "m.png").labels, LABELS)


def test_npy_is_read_also_where_it_is_cellposes(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", LABELS[..., None].astype(np.uint16))
    write_seg(tmp_path / "x.tif", LABELS)

    assert_same_objects(read(tmp_path / "m.npy").labels, LABELS)
    assert_same_objects(read(tmp_path / "x_seg.npy").labels, LABELS)


@pytest.mark.parametrize("value", [1, 255])
def test_one_value_for_all_objects_is_numbered_with_a_note(tmp_path: Path, value: int) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), ((LABELS > 0) * value).astype(np.uint8))

    masks = read(tmp_path / "m.png")

    assert_same_objects(masks.labels, LABELS)  # these discs do not touch
    assert str(COUNT) in masks.notes[0]


def test_a_picture_of_one_bit_is_read(tmp_path: Path) -> None:
    PillowImage.fromarray(LABELS > 0).save(tmp_path / "m.png")
    tifffile.imwrite(tmp_path / "m.tif", LABELS > 0)

    assert read(tmp_path / "m.png").objects == COUNT
    assert read(tmp_path / "m.tif").objects == COUNT


def test_objects_that_touch_at_a_corner_stay_apart() -> None:
    assert to_labels(np.eye(4, dtype=np.uint8))[0].max() == 4


def test_numbers_are_made_consecutive_and_background_stays() -> None:
    labels, notes = to_labels(np.array([[0, 7, 7], [0, 65535, 3], [0, 0, 3]], np.uint16))

    assert sorted(np.unique(labels)) == [0, 1, 2, 3]
    assert (labels == 0).tolist() == [
        [True, False, False],
        [True, False, False],
        [True, True, False],
    ]
    assert notes == []


def test_no_object_is_an_image_without_objects() -> None:
    labels, notes = to_labels(np.zeros((5, 6), np.uint8))

    assert labels.shape == (5, 6)
    assert labels.max() == 0
    assert notes == []


def write_rgb_png(path: Path) -> None:
    PillowImage.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, "PNG")


def write_alpha_png(path: Path) -> None:
    PillowImage.fromarray(np.zeros((8, 8, 2), np.uint8), "LA").save(path, "PNG")


def write_rgb_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric="rgb")


def write_jpeg(path: Path) -> None:
    PillowImage.fromarray(np.zeros((8, 8), np.uint8)).save(path, "JPEG")


def write_fractions(path: Path) -> None:
    tifffile.imwrite(path, np.full((8, 8), 0.5, np.float32))


def write_not_a_number(path: Path) -> None:
    tifffile.imwrite(path, np.full((8, 8), np.nan, np.float32))


def write_negative(path: Path) -> None:
    tifffile.imwrite(path, np.full((8, 8), -1, np.int16))


def write_three_axes(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 8, 8), np.uint8))


def write_complex(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((8, 8), np.complex64))


def write_cut(path: Path) -> None:
    tifffile.imwrite(path, LABELS.astype(np.uint16))
    path.write_bytes(path.read_bytes()[:-2000])


def write_cut_png(path: Path) -> None:
    cv2.imwrite(str(path.with_suffix(".png")), LABELS.astype(np.uint16))
    path.write_bytes(path.with_suffix(".png").read_bytes()[:-200])


def write_text(path: Path) -> None:
    path.write_text("no picture")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_rgb_png, "colour picture"),
        (write_alpha_png, "colour picture"),
        (write_rgb_tiff, "3 channels"),
        (write_jpeg, "JPEG"),
        (write_fractions, "fractions"),
        (write_not_a_number, "fractions"),
        (write_negative, "below 0"),
        (write_three_axes, "3 x 8 x 8"),
        (write_complex, "no plain numbers"),
        (write_cut, "truncated"),
        (write_cut_png, "cannot be read"),
        (write_text, "none of the image formats"),
        (write_nothing, "empty"),
    ],
)
def test_what_is_no_label_image_is_refused_with_a_sentence(
    tmp_path: Path, write: Any, said: str
) -> None:
    write(tmp_path / "m")

    with pytest.raises(ImageDecodeError, match=said):
        read(tmp_path / "m")


@pytest.mark.parametrize("name", ["m.tif", "m.png", "m.npy"])
def test_more_pixels_than_are_allowed_are_refused(tmp_path: Path, name: str) -> None:
    if name.endswith("npy"):
        np.save(tmp_path / name, LABELS)
    else:
        PillowImage.fromarray(LABELS.astype(np.uint16)).save(tmp_path / name)

    with pytest.raises(ImageTooLarge):
        read(tmp_path / name, most=LABELS.size - 1)
