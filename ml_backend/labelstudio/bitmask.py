"""Masks <-> the PNG data URLs of Label Studio's Bitmask regions.

The picture has the size of the image frame and is black where the mask is, transparent elsewhere:
what Label Studio's canvas saves. Only its opacity counts when it is drawn. We write one bit per
pixel (a palette of transparent and black), which every browser and Pillow reads.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ml_backend.errors import BadRequest
from ml_backend.geometry.patches import Patch

_PREFIX = "data:image/png;base64,"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FASTEST = 1  # a mask's rows compress to next to nothing at any level


def encode_bitmask(patch: Patch, height: int, width: int) -> str:
    """Return a mask as a PNG data URL of height x width pixels."""
    # Pillow would want every mask as a full frame of bytes: 16 times the work of these six lines.
    rows = np.zeros((height, 1 + (width + 7) // 8), dtype=np.uint8)  # a filter byte, then bits
    first = patch.x // 8
    aligned = np.pad(patch.mask, ((0, 0), (patch.x - 8 * first, 0)))
    packed = np.packbits(aligned, axis=1)
    rows[patch.y : patch.y + len(packed), 1 + first : 1 + first + packed.shape[1]] = packed
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)  # 1 bit, palette
    chunks = [
        _chunk(b"IHDR", header),
        _chunk(b"PLTE", bytes(6)),  # black, black
        _chunk(b"tRNS", b"\x00\xff"),  # transparent, opaque
        _chunk(b"IDAT", zlib.compress(rows.tobytes(), _FASTEST)),
        _chunk(b"IEND", b""),
    ]
    return _PREFIX + base64.b64encode(_SIGNATURE + b"".join(chunks)).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def decode_bitmask(url: str, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return the opacity of a PNG data URL, (Y, X) uint8 in 0..255 in the image frame.

    Raises:
        BadRequest: when it is no PNG data URL or its picture has another size.
    """
    if not url.startswith(_PREFIX):
        raise BadRequest("imageDataURL is no PNG data URL")
    if len(url) > 8 * height * width + 65536:  # even noise in four channels is smaller
        raise BadRequest("imageDataURL is too long for the image")
    try:
        data = base64.b64decode(url[len(_PREFIX) :], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.size != (width, height):  # before its pixels are decoded
                raise BadRequest(
                    f"imageDataURL is {picture.width} x {picture.height} pixels, "
                    f"the image {width} x {height}"
                )
            return _opacity(picture)
    except (binascii.Error, UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadRequest("imageDataURL holds no readable PNG") from error
    except Image.DecompressionBombError as error:
        raise BadRequest("imageDataURL holds a picture that is too large") from error


def _opacity(picture: Image.Image) -> npt.NDArray[np.uint8]:
    if picture.mode in ("RGBA", "LA"):
        return np.asarray(picture.getchannel("A"))
    transparency = picture.info.get("transparency")
    if picture.mode == "P" and isinstance(transparency, bytes):  # ours; a third of the time
        by_colour = np.full(256, 255, dtype=np.uint8)
        by_colour[: len(transparency)] = np.frombuffer(transparency, dtype=np.uint8)[:256]
        opacity: npt.NDArray[np.uint8] = by_colour[np.asarray(picture)]
        return opacity
    return np.asarray(picture.convert("RGBA").getchannel("A"))
