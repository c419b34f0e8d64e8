"""Masks <-> brush RLE, the bit stream of Label Studio's BrushLabels, bit for bit as its SDK.

What the stream holds is said in `rle_records`.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage
from ml_backend.geometry.runs import Runs, find_runs
from ml_backend.labelstudio.rle_records import (
    CHANNELS,
    HEADER_BITS,
    LONGEST,
    RUN_BITS,
    WORD_BITS,
    check_frame,
    read_runs,
)

_OPAQUE = 255
_FEW = 2000  # runs up to which filling them one by one beats building the whole frame
_LAZY = 2**20  # bytes from which a frame is worth memory of its own

# The header behind the 32-bit count, 21 bits.
_HEADER_TAIL = WORD_BITS - 1
for _bits in RUN_BITS:
    _HEADER_TAIL = _HEADER_TAIL << 4 | (_bits - 1)

Bits = npt.NDArray[np.uint64]


def encode_label_image(labels: LabelImage, count: int | None = None) -> list[bytes]:
    """Return the RLE of every instance 1..count, all encoded at once.

    The work per instance is that of its outline plus height x width x 4 / 65536 records.

    Args:
        labels: (Y, X) int32, 0 = background.
        count: Number of instances; None = the highest label. One without pixels gets an empty
            mask.
    """
    check_frame(*labels.shape)
    return _encode(find_runs(labels, count), labels.size)


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Return the RLE of a (Y, X) mask."""
    return encode_label_image(mask.astype(np.int32), 1)[0]


def _encode(runs: Runs, pixels: int) -> list[bytes]:
    lengths, values, per_instance = _spans(runs, pixels)
    lengths *= CHANNELS
    # SDK: a span beyond 65536 values is cut into such pieces, the last in the widest run size too
    pieces = (lengths - 1) // LONGEST + 1
    last = np.cumsum(pieces) - 1
    owner = np.repeat(np.arange(runs.count), per_instance)
    rest = lengths - (pieces - 1) * LONGEST
    size = np.searchsorted((8, 16, 256), rest)
    size[pieces > 1] = len(RUN_BITS) - 1
    run_bits = np.asarray(RUN_BITS)[size]

    total = int(last[-1]) + 1 if len(last) else 0
    records = np.full(total, (0b111 << 16 | (LONGEST - 1)) << WORD_BITS, dtype=np.uint64)
    widths = np.full(total, 3 + 16 + WORD_BITS)
    head = (0b100 | size) << run_bits | (rest - 1)
    records[last] = head << WORD_BITS
    widths[last] = 3 + run_bits + WORD_BITS
    records |= np.repeat(values, pieces).astype(np.uint64)

    record_owner = np.repeat(owner, pieces)
    bits = np.bincount(record_owner, weights=widths, minlength=runs.count).astype(np.intp)
    sizes = (bits + HEADER_BITS) // 8 + 1
    begins = np.cumsum(sizes) - sizes
    return _write(records, widths, bits, begins, sizes, pixels)


def _spans(
    runs: Runs, pixels: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return lengths (pixels) and values of the spans of all masks, and how many each mask has.

    A mask is background, run, background, run, ..., background; empty spans are left out.
    """
    count, bounds = runs.count, runs.bounds
    filled = np.diff(bounds)
    slots = 2 * filled + 1
    first = np.cumsum(slots) - slots  # slot of a mask's leading background
    lengths = np.zeros(int(slots.sum()), dtype=np.intp)
    values = np.zeros(len(lengths), dtype=np.intp)
    position = first[runs.label - 1] + 2 * (np.arange(len(runs.label)) - bounds[runs.label - 1]) + 1
    lengths[position] = runs.stop - runs.start
    values[position] = _OPAQUE
    previous = np.concatenate([[0], runs.stop[:-1]])
    previous[bounds[:-1][filled > 0]] = 0
    lengths[position - 1] = runs.start - previous
    tail = np.full(count, pixels, dtype=np.intp)
    tail[filled > 0] -= runs.stop[bounds[1:][filled > 0] - 1]
    lengths[first + slots - 1] = tail
    kept = lengths > 0
    owner = np.repeat(np.arange(count), slots)
    return lengths[kept], values[kept], np.bincount(owner[kept], minlength=count)


def _write(
    records: Bits,
    widths: npt.NDArray[np.intp],
    bits: npt.NDArray[np.intp],
    begins: npt.NDArray[np.intp],
    sizes: npt.NDArray[np.intp],
    pixels: int,
) -> list[bytes]:
    """Return the streams: each a header and its share of the records, packed bit by bit."""
    stream: npt.NDArray[np.uint8] = np.zeros(int(sizes.sum()) + 8, dtype=np.uint8)
    header = ((pixels * CHANNELS) << 21 | _HEADER_TAIL) << (64 - HEADER_BITS)
    stream[begins[:, None] + np.arange(8)] = list(header.to_bytes(8, "big"))

    # bit offset of a record = those before it in all streams + what pads the streams before its
    ends = np.cumsum(widths)
    shift = begins * 8 + HEADER_BITS - (np.cumsum(bits) - bits)
    records_each = np.diff(np.searchsorted(ends, np.concatenate([[0], np.cumsum(bits)]), "right"))
    offsets = ends - widths + np.repeat(shift, records_each)
    byte = offsets >> 3
    # A record (14 to 27 bits at any of 8 positions) lies within 5 bytes. No two records begin in
    # the same byte, so that plain indexing may add the bytes: one pass for each of the five.
    moved = records << (40 - widths - (offsets & 7)).astype(np.uint64)
    for index in range(5):
        part = (moved >> np.uint64(32 - 8 * index)).astype(np.uint8)
        stream[byte + index] |= part
    data = stream.tobytes()
    return [data[b : b + s] for b, s in zip(begins.tolist(), sizes.tolist(), strict=True)]


def decode_mask(rle: bytes | Sequence[int], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return the opacity of a brush region, (Y, X) uint8 in 0..255 in the image frame.

    Strokes drawn by hand are antialiased; a pixel belongs to the mask from 128 on. Of a large frame
    only the inked rows have memory yet: reading all of it costs more than decoding, so that for
    many cells `decode_rows` is the one to use.

    Raises:
        BadRequest: when the stream is damaged or belongs to an image of another size.
    """
    starts, stops, values = read_runs(rle, height, width)
    alpha = _empty_frame(height * width)
    _paint(alpha, starts, stops, values, 0)
    return alpha.reshape(height, width)


def decode_rows(
    rle: bytes | Sequence[int], height: int, width: int
) -> tuple[int, npt.NDArray[np.uint8]]:
    """Return the first row with anything visible, and the opacity of the rows to the last such.

    The same as `decode_mask` without the empty rows, whose memory would cost more than decoding.

    Raises:
        BadRequest: when the stream is damaged or belongs to an image of another size.
    """
    starts, stops, values = read_runs(rle, height, width)
    if not values:
        return 0, np.zeros((0, width), dtype=np.uint8)
    top, bottom = starts[0] // width, (stops[-1] - 1) // width + 1
    alpha = np.zeros((bottom - top) * width, dtype=np.uint8)
    _paint(alpha, starts, stops, values, top * width)
    return top, alpha.reshape(-1, width)


def _paint(
    alpha: npt.NDArray[np.uint8],
    starts: list[int],
    stops: list[int],
    values: list[int],
    offset: int,
) -> None:
    """Write the runs into `alpha`, flat, whose first pixel is pixel `offset` of the frame."""
    if len(values) < _FEW:
        for start, stop, value in zip(starts, stops, values, strict=True):
            alpha[start - offset : stop - offset] = value
        return
    sizes = np.subtract(stops, starts)
    pixels = np.arange(sizes.sum()) + np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
    alpha[pixels - offset] = np.repeat(np.asarray(values, dtype=np.uint8), sizes)


def _empty_frame(pixels: int) -> npt.NDArray[np.uint8]:
    """Return zeros, (pixels,), of which only the pages that are written cost memory and time.

    `np.zeros` leaves that to the C library, which writes every byte again when it reuses memory,
    and asks Linux for pages of 2 MiB, which are zeroed whole for the few rows of a cell.
    """
    if pixels < _LAZY:
        return np.zeros(pixels, dtype=np.uint8)
    fresh = mmap.mmap(-1, pixels, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(fresh, dtype=np.uint8)
