from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_studio_sdk.converter.brush import decode_rle, encode_rle, mask2rle

from ml_backend.domain import LabelImage
from ml_backend.errors import BadRequest
from ml_backend.labelstudio.rle import (
    decode_mask,
    decode_rows,
    encode_label_image,
    encode_mask,
)
from tests.label_images import discs, noise


def sdk_encode(mask: np.ndarray) -> list[int]:
    return mask2rle((mask * 255).astype(np.uint8))


def sdk_decode(rle: list[int], height: int, width: int) -> np.ndarray:
    return decode_rle(rle).reshape(height, width, 4)[..., 3]


def mask_of_runs(runs: list[int], width: int) -> np.ndarray:
    """Return a mask that begins with background and changes after each run of pixels."""
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    rows = -(-len(flat) // width)
    return np.pad(flat, (0, rows * width - len(flat))).reshape(rows, width)


@given(labels=noise())
@settings(max_examples=50, deadline=None)
def test_a_label_image_is_encoded_as_the_sdk_encodes_each_mask(labels: LabelImage) -> None:
    count = 5  # one more than there can be: an instance without pixels

    encoded = encode_label_image(labels, count)

    assert [list(rle) for rle in encoded] == [
        sdk_encode(labels == label) for label in range(1, count + 1)
    ]


@pytest.mark.parametrize("run", [1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 32768, 40000])
@pytest.mark.parametrize("width", [1, 7, 64, 1000])
def test_every_size_class_is_bit_exact(run: int, width: int) -> None:
    mask = mask_of_runs([run, run, 1, run, 70], width)

    encoded = encode_mask(mask)

    assert list(encoded) == sdk_encode(mask)
    assert np.array_equal(decode_mask(encoded, *mask.shape), mask * 255)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (300, 500), (129, 128), (2048, 3)])
@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_are_bit_exact(shape: tuple[int, int], value: int) -> None:
    mask = np.full(shape, value == 1)

    encoded = encode_mask(mask)

    assert list(encoded) == sdk_encode(mask)
    assert np.array_equal(decode_mask(encoded, *shape), mask * 255)


def test_a_single_pixel_anywhere_is_bit_exact() -> None:
    for y, x in [(0, 0), (0, 130), (255, 0), (255, 130), (100, 60)]:
        mask = np.zeros((256, 131), dtype=np.bool_)
        mask[y, x] = True

        assert list(encode_mask(mask)) == sdk_encode(mask)


def test_no_instances_give_no_masks() -> None:
    assert encode_label_image(np.zeros((4, 5), dtype=np.int32)) == []


@given(
    alpha=st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
        lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 127, 128, 255]))
    )
)
@settings(max_examples=50, deadline=None)
def test_antialiased_strokes_are_read_as_the_sdk_reads_them(alpha: np.ndarray) -> None:
    rle = mask2rle(alpha)

    assert np.array_equal(alpha, decode_mask(rle, *alpha.shape))


@given(
    values=arrays(np.int64, (6, 5, 4), elements=st.integers(0, 255)),
    sizes=st.sampled_from([[3, 4, 8, 16], [2, 4, 8, 16], [1, 2, 3, 16]]),
)
@settings(max_examples=50, deadline=None)
def test_only_the_opacity_of_four_channels_is_read(values: np.ndarray, sizes: list[int]) -> None:
    # the SDK only writes the sizes 3, 4, 8, 16, so that others are written here
    rle = encode_rle(values.ravel()) if sizes[0] == 3 else raw_stream(values, sizes)

    assert np.array_equal(values[..., 3], decode_mask(rle, 6, 5))


def raw_stream(values: np.ndarray, sizes: list[int]) -> list[int]:
    """Return a stream of lists of values, as thi-ng rle-pack writes what does not repeat."""
    flat = values.ravel().tolist()
    bits = f"{len(flat):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    while flat:
        index = min(len(flat) % 4, 3)
        part, flat = flat[: 2 ** sizes[index]], flat[2 ** sizes[index] :]
        bits += "0" + f"{index:02b}" + f"{len(part) - 1:0{sizes[index]}b}"
        bits += "".join(f"{value:08b}" for value in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_long_stretches_of_ink_and_background_are_read_as_the_sdk_reads_them() -> None:
    for ink in (255, 77):
        alpha = np.zeros((1500, 1700), dtype=np.uint8)
        alpha[200:1100] = ink
        alpha[1300:1310, 50:90] = 255
        rle = mask2rle(alpha)

        assert np.array_equal(alpha, decode_mask(rle, *alpha.shape))


@pytest.mark.parametrize("shape", [(1023, 1024), (1024, 1024), (1025, 1024)])
def test_a_frame_is_its_callers_to_write_whatever_its_size(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, dtype=np.bool_)
    mask[5, 7:900] = mask[-1, -1] = True
    rle = encode_mask(mask)

    first, second = decode_mask(rle, *shape), decode_mask(rle, *shape)
    first[:] = 9

    assert np.array_equal(second, mask * 255)
    assert np.array_equal(decode_mask(rle, *shape), mask * 255)


def test_the_rows_with_ink_are_all_that_is_returned() -> None:
    labels = discs(1, diameter=10, height=300, width=200)

    top, rows = decode_rows(encode_label_image(labels)[0], 300, 200)

    assert top == 0
    assert np.array_equal(labels[:10] > 0, rows == 255)
    assert decode_rows(encode_mask(labels > 5), 300, 200)[1].shape == (0, 200)


def test_bytes_and_lists_are_both_read() -> None:
    rle = encode_mask(np.eye(9, dtype=np.bool_))

    assert np.array_equal(decode_mask(rle, 9, 9), decode_mask(list(rle), 9, 9))


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_stream_is_refused_or_read_within_the_frame(data: st.DataObject) -> None:
    mask = data.draw(arrays(np.bool_, (9, 11)))
    rle = bytearray(encode_mask(mask))
    for _ in range(data.draw(st.integers(1, 3))):
        rle[data.draw(st.integers(0, len(rle) - 1))] = data.draw(st.integers(0, 255))
    rle = rle[: data.draw(st.integers(0, len(rle)))]

    try:
        alpha = decode_mask(bytes(rle), 9, 11)
    except BadRequest:
        return

    assert alpha.shape == (9, 11)


@pytest.mark.parametrize(
    "rle",
    [
        [],
        [0] * 6,
        "text",
        None,
        5,
        [256] * 20,
        [-1] * 20,
        [1.5] * 20,
        ["a"] * 20,
        [0] * 100_000,
        list(encode_mask(np.ones((5, 6), dtype=np.bool_)))[:-2],
        list(encode_mask(np.ones((6, 6), dtype=np.bool_))),
    ],
)
def test_what_is_no_stream_of_this_image_is_refused(rle: object) -> None:
    with pytest.raises(BadRequest, match="rle"):
        decode_mask(rle, 5, 6)  # type: ignore[arg-type] # what a browser may send


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (2**16, 2**16)])
def test_a_frame_that_no_stream_can_have_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(BadRequest, match="pixels"):
        decode_mask(b"\0" * 20, *shape)
