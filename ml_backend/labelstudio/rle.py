"""Masks <-> brush RLE, the bit stream of Label Studio's BrushLabels, bit for bit as its SDK.

The stream holds, most significant bit first: 32 bits number of values, 5 bits word size - 1, four
times 4 bits run size - 1, then records until the number is reached, then zeros up to a full byte
(a whole zero byte when it is full already). A record is 1 bit (1 = one value repeated, 0 = a list
of values), 2 bits that choose a run size, that many bits length - 1, and the value or values. The
values are the image frame's pixels, row-major, R, G, B, A; an encoded mask has 255 in all four.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage
from ml_backend.errors import BadRequest
from ml_backend.labelstudio.runs import Runs, find_runs

CHANNELS = 4  # R, G, B, A
MAX_PIXELS = (2**32 - 1) // CHANNELS  # the stream counts values in 32 bits

_WORD_BITS = 8
_RUN_BITS = (3, 4, 8, 16)
_HEADER_BITS = 32 + 5 + 4 * len(_RUN_BITS)
_LONGEST = 2**16
_OPAQUE = 255
_WINDOW = struct.Struct(">Q").unpack_from
_FEW = 2000  # runs up to which filling them one by one beats building the whole frame

# The header behind the 32-bit count, 21 bits.
_HEADER_TAIL = _WORD_BITS - 1
for _bits in _RUN_BITS:
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
    _check_frame(*labels.shape)
    return _encode(find_runs(labels, count), labels.size)


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Return the RLE of a (Y, X) mask."""
    return encode_label_image(mask.astype(np.int32), 1)[0]


def _check_frame(height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise BadRequest(
            f"An image of {width} x {height} pixels has no brush masks in Label Studio; use one "
            f"of at most {MAX_PIXELS} pixels."
        )


def _encode(runs: Runs, pixels: int) -> list[bytes]:
    lengths, values, per_instance = _spans(runs, pixels)
    lengths *= CHANNELS
    # SDK: a span beyond 65536 values is cut into such pieces, the last in the widest run size too
    pieces = (lengths - 1) // _LONGEST + 1
    last = np.cumsum(pieces) - 1
    owner = np.repeat(np.arange(runs.count), per_instance)
    rest = lengths - (pieces - 1) * _LONGEST
    size = np.searchsorted((8, 16, 256), rest)
    size[pieces > 1] = len(_RUN_BITS) - 1
    run_bits = np.asarray(_RUN_BITS)[size]

    total = int(last[-1]) + 1 if len(last) else 0
    records = np.full(total, (0b111 << 16 | (_LONGEST - 1)) << _WORD_BITS, dtype=np.uint64)
    widths = np.full(total, 3 + 16 + _WORD_BITS)
    head = (0b100 | size) << run_bits | (rest - 1)
    records[last] = head << _WORD_BITS
    widths[last] = 3 + run_bits + _WORD_BITS
    records |= np.repeat(values, pieces).astype(np.uint64)

    record_owner = np.repeat(owner, pieces)
    bits = np.bincount(record_owner, weights=widths, minlength=runs.count).astype(np.intp)
    sizes = (bits + _HEADER_BITS) // 8 + 1
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
    header = ((pixels * CHANNELS) << 21 | _HEADER_TAIL) << (64 - _HEADER_BITS)
    stream[begins[:, None] + np.arange(8)] = list(header.to_bytes(8, "big"))

    # bit offset of a record = those before it in all streams + what pads the streams before its
    ends = np.cumsum(widths)
    shift = begins * 8 + _HEADER_BITS - (np.cumsum(bits) - bits)
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

    Strokes drawn by hand are antialiased; a pixel belongs to the mask from 128 on.

    Raises:
        BadRequest: when the stream is damaged or belongs to an image of another size.
    """
    top, rows = decode_rows(rle, height, width)
    alpha = np.zeros((height, width), dtype=np.uint8)
    alpha[top : top + len(rows)] = rows
    return alpha


def decode_rows(
    rle: bytes | Sequence[int], height: int, width: int
) -> tuple[int, npt.NDArray[np.uint8]]:
    """Return the first row with anything visible, and the opacity of the rows to the last such.

    The same as `decode_mask` without the empty rows, whose memory would cost more than decoding.

    Raises:
        BadRequest: when the stream is damaged or belongs to an image of another size.
    """
    _check_frame(height, width)
    data = _to_bytes(rle, height * width * CHANNELS)
    run_bits = _read_header(data, height, width)
    starts, stops, values = _read_records(data, run_bits, height * width * CHANNELS)
    if not values:
        return 0, np.zeros((0, width), dtype=np.uint8)
    top, bottom = starts[0] // width, (stops[-1] - 1) // width + 1
    offset = top * width
    alpha = np.zeros((bottom - top) * width, dtype=np.uint8)
    if len(values) < _FEW:
        for start, stop, value in zip(starts, stops, values, strict=True):
            alpha[start - offset : stop - offset] = value
    else:
        sizes = np.subtract(stops, starts)
        pixels = np.arange(sizes.sum()) + np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
        alpha[pixels - offset] = np.repeat(np.asarray(values, dtype=np.uint8), sizes)
    return top, alpha.reshape(-1, width)


def _to_bytes(rle: bytes | Sequence[int], values: int) -> bytes:
    """Return the stream as bytes, refusing what cannot be one before reading it."""
    if isinstance(rle, str) or not isinstance(rle, Sequence):
        raise BadRequest("rle is no list of bytes")
    if len(rle) * 8 > _HEADER_BITS + 8 + values * (3 + max(_RUN_BITS) + _WORD_BITS):
        raise BadRequest("rle is too long for the image")
    try:
        data = bytes(rle)
    except (TypeError, ValueError):
        raise BadRequest("rle holds something else than numbers from 0 to 255") from None
    if len(data) * 8 < _HEADER_BITS:
        raise BadRequest("rle is empty or cut off")
    return data


def _read_header(data: bytes, height: int, width: int) -> list[int]:
    """Return the run sizes in bits."""
    header = int.from_bytes(data[:7], "big") >> (56 - _HEADER_BITS)
    count, word_bits = header >> 21, (header >> 16 & 31) + 1
    if count != height * width * CHANNELS:
        raise BadRequest(
            f"rle holds {count} values and not the {height * width * CHANNELS} of an image of "
            f"{width} x {height} pixels"
        )
    if word_bits != _WORD_BITS:
        raise BadRequest(f"rle has values of {word_bits} bits, not {_WORD_BITS}")
    return [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)]


def _read_records(
    data: bytes, run_bits: list[int], count: int
) -> tuple[list[int], list[int], list[int]]:
    """Return start, stop (pixels) and opacity of the runs that can be seen.

    How long a record is stands in the record, so one must be read after the other. What is slow
    in Python is kept out of that: background is only counted, its longest runs eight at a time.
    The opacity of pixel k is value 4 k + 3, so that values s to e - 1 hold those of pixels s // 4
    to e // 4 - 1.
    """
    limit = len(data) * 8
    padded = data + bytes(8)
    runs: tuple[list[int], list[int], list[int]] = ([], [], [])
    starts, stops, values = runs
    done, position = 0, _HEADER_BITS
    while done < count:
        if position + 3 > limit:
            raise BadRequest("rle is cut off")
        record = _WINDOW(padded, position >> 3)[0] >> (37 - (position & 7)) & 0x7FFFFFF  # 27 bits
        kind = record >> 24
        size = run_bits[kind & 3]
        length = (record >> (24 - size) & ((1 << size) - 1)) + 1
        if kind < 4:  # a list of values
            position += 3 + size
            if position + length * _WORD_BITS > limit or done + length > count:
                raise BadRequest("rle is damaged")
            for index, value in enumerate(_bytes_at(data, position, length), done):
                if index & 3 == 3 and value:
                    starts.append(index >> 2)
                    stops.append((index >> 2) + 1)
                    values.append(value)
            position += length * _WORD_BITS
            done += length
            continue
        value = record >> (16 - size) & 255
        position += 3 + size + _WORD_BITS
        start = done
        done += length
        if length == _LONGEST:
            more = _next_longest(kind, value, position & 7)
            while data.startswith(more, position >> 3) and done + 8 * _LONGEST <= count:
                position += 8 * 27
                done += 8 * _LONGEST
        if value and done >> 2 > start >> 2:
            starts.append(start >> 2)
            stops.append(done >> 2)
            values.append(value)
    if done > count or position > limit:
        raise BadRequest("rle is damaged")
    return runs


def _bytes_at(data: bytes, position: int, length: int) -> bytes:
    """Return the values of 8 bits that begin at a bit."""
    first, offset = position >> 3, position & 7
    part = data[first : first + length + 1]
    bits = int.from_bytes(part, "big") >> (len(part) * 8 - offset - length * 8)
    return (bits & ((1 << (length * 8)) - 1)).to_bytes(length, "big")


@cache
def _next_longest(kind: int, value: int, offset: int) -> bytes:
    """Return the 28 bytes that follow a record of the longest run if eight more like it come.

    The first byte also holds the `offset` last bits of the record before, which are the value's.
    """
    record = (kind << 16 | (_LONGEST - 1)) << _WORD_BITS | value
    bits = value & ((1 << offset) - 1)
    for _ in range(9):  # 27 bytes less `offset` bits would hold the last one only in part
        bits = bits << 27 | record
    return (bits >> (offset + 9 * 27 - 28 * 8)).to_bytes(28, "big")
