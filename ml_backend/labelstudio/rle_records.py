"""The bit stream of a brush RLE, and the records in it.

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

from ml_backend.errors import BadRequest

CHANNELS = 4  # R, G, B, A
MAX_PIXELS = (2**32 - 1) // CHANNELS  # the stream counts values in 32 bits

WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)
HEADER_BITS = 32 + 5 + 4 * len(RUN_BITS)
LONGEST = 2**16

_WINDOW = struct.Struct(">Q").unpack_from


def check_frame(height: int, width: int) -> None:
    """Check that an image of this size can have brush masks.

    Raises:
        BadRequest: it cannot.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise BadRequest(
            f"An image of {width} x {height} pixels has no brush masks in Label Studio; use one "
            f"of at most {MAX_PIXELS} pixels."
        )


def read_runs(
    rle: bytes | Sequence[int], height: int, width: int
) -> tuple[list[int], list[int], list[int]]:
    """Return start, stop (pixels, row-major) and opacity (1..255) of the runs that can be seen.

    Raises:
        BadRequest: when the stream is damaged or belongs to an image of another size.
    """
    check_frame(height, width)
    count = height * width * CHANNELS
    data = _to_bytes(rle, count)
    return _read_records(data, _read_header(data, height, width), count)


def _to_bytes(rle: bytes | Sequence[int], values: int) -> bytes:
    """Return the stream as bytes, refusing what cannot be one before reading it."""
    if isinstance(rle, str) or not isinstance(rle, Sequence):
        raise BadRequest("rle is no list of bytes")
    if len(rle) * 8 > HEADER_BITS + 8 + values * (3 + max(RUN_BITS) + WORD_BITS):
        raise BadRequest("rle is too long for the image")
    try:
        data = bytes(rle)
    except (TypeError, ValueError):
        raise BadRequest("rle holds something else than numbers from 0 to 255") from None
    if len(data) * 8 < HEADER_BITS:
        raise BadRequest("rle is empty or cut off")
    return data


def _read_header(data: bytes, height: int, width: int) -> list[int]:
    """Return the run sizes in bits."""
    header = int.from_bytes(data[:7], "big") >> (56 - HEADER_BITS)
    count, word_bits = header >> 21, (header >> 16 & 31) + 1
    if count != height * width * CHANNELS:
        raise BadRequest(
            f"rle holds {count} values and not the {height * width * CHANNELS} of an image of "
            f"{width} x {height} pixels"
        )
    if word_bits != WORD_BITS:
        raise BadRequest(f"rle has values of {word_bits} bits, not {WORD_BITS}")
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
    done, position = 0, HEADER_BITS
    while done < count:
        if position + 3 > limit:
            raise BadRequest("rle is cut off")
        record = _WINDOW(padded, position >> 3)[0] >> (37 - (position & 7)) & 0x7FFFFFF  # 27 bits
        kind = record >> 24
        size = run_bits[kind & 3]
        length = (record >> (24 - size) & ((1 << size) - 1)) + 1
        if kind < 4:  # a list of values
            position += 3 + size
            if position + length * WORD_BITS > limit or done + length > count:
                raise BadRequest("rle is damaged")
            for index, value in enumerate(_bytes_at(data, position, length), done):
                if index & 3 == 3 and value:
                    starts.append(index >> 2)
                    stops.append((index >> 2) + 1)
                    values.append(value)
            position += length * WORD_BITS
            done += length
            continue
        value = record >> (16 - size) & 255
        position += 3 + size + WORD_BITS
        start = done
        done += length
        if length == LONGEST:
            more = _next_longest(kind, value, position & 7)
            while data.startswith(more, position >> 3) and done + 8 * LONGEST <= count:
                position += 8 * 27
                done += 8 * LONGEST
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
    record = (kind << 16 | (LONGEST - 1)) << WORD_BITS | value
    bits = value & ((1 << offset) - 1)
    for _ in range(9):  # 27 bytes less `offset` bits would hold the last one only in part
        bits = bits << 27 | record
    return (bits >> (offset + 9 * 27 - 28 * 8)).to_bytes(28, "big")
