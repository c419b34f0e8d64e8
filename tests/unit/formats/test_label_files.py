"""Label images as files: what is written is what is read."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from ml_backend.domain import LabelImage
from ml_backend.errors import ImageDecodeError, ImageError, ImageTooLarge
from ml_backend.formats.label_png import write_label_png, write_picture_png
from ml_backend.formats.label_tiff import write_label_tiff
from ml_backend.formats.label_type import compact
from ml_backend.formats.numpy_file import (
    npy_pieces,
    read_npy,
    read_npy_base64,
    write_npy,
    write_npy_base64,
)
from tests.label_images import noise

NUMBERS = st.sampled_from(["?", "<u1", "<u2", ">u2", "<i4", "<u8", "<f2", "<f4", ">f8"])
LABELS = noise(max_side=20, max_label=70_000)


def written(array: np.ndarray) -> bytes:
    """Return the bytes of our NPY file."""
    file = io.BytesIO()
    write_npy(file, array)
    return file.getvalue()


def header(descr: object, shape: object, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return the head of an NPY file that says so, however wrong that is."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text


@given(
    array=NUMBERS.flatmap(
        lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    )
)
@settings(max_examples=200, deadline=None)
def test_any_array_of_numbers_comes_back_from_npy(array: np.ndarray) -> None:
    by_numpy = np.load(io.BytesIO(written(array)), allow_pickle=False)
    by_us = read_npy(written(array), max_values=10_000)

    for read in (by_numpy, by_us):
        assert read.shape == array.shape
        assert np.array_equal(read, array, equal_nan=array.dtype.kind == "f")
    assert by_us.dtype == array.dtype.newbyteorder("=")


@given(array=arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=6)))
@settings(max_examples=60, deadline=None)
def test_what_numpy_writes_is_read(array: np.ndarray) -> None:
    for order in (np.ascontiguousarray(array), np.asfortranarray(array), array[::-1]):
        file = io.BytesIO()
        np.save(file, order)

        read = read_npy(file.getvalue(), max_values=10_000)

        assert np.array_equal(read, order, equal_nan=True)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 786_430, 786_432, 786_433, 2_000_000])
def test_base64_in_pieces_is_the_base_64_of_the_file(size: int) -> None:
    array = np.arange(size, dtype=np.uint32).astype(np.uint8)
    file = io.BytesIO()

    write_npy_base64(file, array)

    assert base64.b64decode(file.getvalue(), validate=True) == written(array)
    assert np.array_equal(read_npy_base64(file.getvalue(), max_values=size), array)


def test_a_large_array_is_written_without_a_second_one() -> None:
    array = np.zeros((1000, 3000), np.float32)

    sizes = [len(piece) for piece in npy_pieces(array)]

    assert sum(sizes) == array.nbytes + 128
    assert max(sizes) < 1_000_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no NPY file"),
        (b"\x93NUMPY", "no NPY file"),
        (b"\x93NUMPY\x01\x00\xff\xff", "no NPY file"),
        (b"PK\x03\x04 and more of an archive", "no NPY file"),
        (header("<f4", (2, 1.5)) + bytes(8), "no NPY file"),
        (header("<f4", "__import__('os')") + bytes(8), "no NPY file"),
        (header("<f4", (2,), (3, 0)) + bytes(8), "no NPY file"),
        (header("|O", (2,)) + bytes(16), "no plain numbers"),
        (header("<U4", (2,)) + bytes(32), "no plain numbers"),
        (header("<c8", (2,)) + bytes(16), "no plain numbers"),
        (header([("a", "<f4")], (2,)) + bytes(8), "no plain numbers"),
        (header("<f4", (-2, -2)) + bytes(16), "impossible shape"),
        (header("<f4", (True, 2)) + bytes(8), "impossible shape"),
        (header("<f4", (3,)) + bytes(8), "was cut or damaged"),
        (header("<f4", (1,)) + bytes(8), "was cut or damaged"),
        (header("<f4", (3,) * 3) + bytes(8), "was cut or damaged"),
    ],
)
def test_anything_else_is_one_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(ImageDecodeError, match=sentence):
        read_npy(content, max_values=1000)


def test_a_header_that_asks_for_too_much_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ImageTooLarge, match="1000000000000 numbers"):
        read_npy(header("<f8", (10**6, 10**6)) + bytes(8), max_values=10**6)


def test_pickles_are_never_opened() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(ImageDecodeError, match="no plain numbers"):
        read_npy(file.getvalue(), max_values=10)


@pytest.mark.parametrize("text", ["no base 64!", "YWJj\nYWJj", "é", "YWJ"])
def test_text_that_is_no_base64_is_one_sentence(text: str) -> None:
    with pytest.raises(ImageDecodeError, match="no base64"):
        read_npy_base64(text, max_values=10)


@given(labels=LABELS)
@settings(max_examples=60, deadline=None)
def test_any_label_image_comes_back_from_tiff(labels: LabelImage) -> None:
    file = io.BytesIO()

    write_label_tiff(file, labels)

    read = tifffile.imread(io.BytesIO(file.getvalue()))
    assert np.array_equal(read, labels)
    assert read.dtype == (np.uint16 if labels.max() <= 65535 else np.uint32)


@given(labels=noise(max_side=20, max_label=65535))
@settings(max_examples=60, deadline=None)
def test_any_label_image_of_16_bits_comes_back_from_png(labels: LabelImage) -> None:
    file = io.BytesIO()

    write_label_png(file, labels)

    with Image.open(io.BytesIO(file.getvalue())) as picture:
        assert picture.format == "PNG"
        assert np.array_equal(np.asarray(picture), labels)


def test_more_instances_than_a_png_can_number_are_refused() -> None:
    with pytest.raises(ImageError, match="65536 instances do not fit a 16-bit PNG"):
        write_label_png(io.BytesIO(), np.array([[65536]], np.int32))


def test_a_picture_keeps_its_colours() -> None:
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[..., 0] = 200
    picture[0, 0] = 1, 2, 3
    file = io.BytesIO()

    write_picture_png(file, picture)

    decoded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decoded[..., ::-1], picture)


@pytest.mark.parametrize(("most", "kind"), [(65535, np.uint16), (65536, np.uint32)])
def test_labels_take_16_bits_where_they_fit(most: int, kind: type) -> None:
    assert compact(np.array([[most]], np.int32)).dtype == kind
