"""Bytes become the picture that a browser shows, or one clear sentence."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from ml_backend.domain import FetchedFile, Image
from ml_backend.errors import ImageDecodeError, ImageTooLarge
from ml_backend.imaging.decode import decode_image

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (12, 20), np.uint8)
RGB = RANDOM.integers(0, 256, (12, 20, 3), np.uint8)

Decode = Callable[..., Image]


@pytest.fixture
def decode(tmp_path: Path) -> Decode:
    """Decode bytes under a name that says nothing."""

    def run(content: bytes, **asked: object) -> Image:
        path = tmp_path / "file.txt"
        path.write_bytes(content)
        arguments: dict[str, object] = {"max_megapixels": 1, **asked}
        return decode_image(path, **arguments)  # type: ignore[arg-type]  # keywords by name

    return run


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def as_tiff(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header promises an image that its pixels do not hold."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_lossless_formats_come_back_exactly(kind: str, pixels: np.ndarray, decode: Decode) -> None:
    image = decode(saved(pixels, kind))

    np.testing.assert_array_equal(pixels.reshape(12, 20, -1), image.pixels)
    assert (image.height, image.width) == (12, 20)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(saved(GRAY, "PNG"))
    file = FetchedFile(path=path, sha256="ab" * 32, size=path.stat().st_size)

    assert decode_image(file, max_megapixels=1).sha256 == "ab" * 32
    assert len(decode_image(path, max_megapixels=1).sha256) == 64


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 3)], ids=["gray", "rgb"])
def test_16_bit_png_keeps_its_16_bits(shape: tuple[int, ...], decode: Decode) -> None:
    pixels = RANDOM.integers(0, 65536, shape, np.uint16)

    image = decode(imagecodecs.png_encode(pixels))

    np.testing.assert_array_equal(pixels.reshape(12, 20, -1), image.pixels)


def test_16_bit_png_with_alpha_lies_over_white(decode: Decode) -> None:
    pixels = np.zeros((2, 2, 4), np.uint16)
    pixels[0, :, 3] = 65535

    image = decode(imagecodecs.png_encode(pixels))

    assert image.pixels[..., 0].tolist() == [[0, 0], [65535, 65535]]


def test_transparent_places_show_a_white_page(decode: Decode) -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = [255, 0, 51]

    image = decode(saved(pixels, "PNG"))

    assert image.pixels[0, :, 0].tolist() == [0, 255, 204]


def test_gray_with_alpha_stays_one_channel(decode: Decode) -> None:
    pixels = np.stack([GRAY, np.full_like(GRAY, 255)], axis=-1)

    image = decode(saved(pixels, "PNG"))

    np.testing.assert_array_equal(GRAY, image.pixels[..., 0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_the_browser_does(
    kind: str, orientation: int, decode: Decode
) -> None:
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:8, :20] = 255  # tells all eight apart
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    lies = decode(saved(upright, "PNG", exif=_exif(inverse))).pixels
    options = {"lossless": True} if kind == "WEBP" else {}

    image = decode(saved(lies, kind, exif=_exif(orientation), **options))

    np.testing.assert_allclose(upright, image.pixels, atol=40)
    assert image.pixels.shape == (40, 60, 3)


def _exif(orientation: int) -> bytes:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored_as_browsers_do(decode: Decode) -> None:
    content = saved(RGB, "PNG", exif=b"Exif\0\0MM\0*\0\0\xff\xff")

    np.testing.assert_array_equal(RGB, decode(content).pixels)


def test_an_xmp_orientation_is_ignored_as_browsers_do(decode: Decode) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'

    image = decode(saved(RGB, "JPEG", xmp=xmp))

    assert image.pixels.shape == (12, 20, 3)


def test_a_tiff_is_turned_by_its_orientation_and_says_so(decode: Decode) -> None:
    image = decode(as_tiff(GRAY, extratags=[(274, 3, 1, 6, True)]))

    np.testing.assert_array_equal(np.rot90(GRAY, -1), image.pixels[..., 0])
    assert image.notes == ("The image was turned upright as its orientation tag says.",)


def test_cmyk_jpeg_becomes_rgb(decode: Decode) -> None:
    file = io.BytesIO()
    PillowImage.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file, "JPEG")

    image = decode(file.getvalue())

    assert image.pixels.shape == (8, 8, 3)
    assert image.pixels[0, 0, 0] > 200
    assert image.pixels[0, 0, 1] < 60


def test_an_animated_gif_gives_its_first_frame(decode: Decode) -> None:
    frames = [PillowImage.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])

    image = decode(file.getvalue())

    assert image.pixels[0, 0].tolist() == [255, 0, 0]
    assert image.notes == ("Only the first frame of the animation was used.",)


@pytest.mark.parametrize(
    "kind", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_keeps_the_detectors_type(kind: str, order: str, decode: Decode) -> None:
    pixels = GRAY.astype(kind)

    image = decode(as_tiff(pixels, byteorder=order))

    np.testing.assert_array_equal(pixels, image.pixels[..., 0])
    assert image.pixels.dtype == np.dtype(kind)


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_other_floats_become_float32(kind: str, decode: Decode) -> None:
    image = decode(as_tiff(GRAY.astype(kind)))

    assert image.pixels.dtype == np.float32


def test_a_float_beyond_float32_is_clipped(decode: Decode) -> None:
    image = decode(as_tiff(np.array([[1e300, -1e300, 1.0]])))

    assert np.isfinite(image.pixels).all()


def test_values_that_are_not_finite_are_replaced_and_counted(decode: Decode) -> None:
    pixels = np.array([[np.nan, 2, 5, np.inf, -np.inf]], np.float32)

    image = decode(as_tiff(pixels))

    assert image.pixels[0, :, 0].tolist() == [2, 2, 5, 5, 2]
    assert image.notes == ("3 pixel values were not finite and were replaced.",)


def test_an_image_of_nan_is_refused(decode: Decode) -> None:
    with pytest.raises(ImageDecodeError, match="no finite pixel"):
        decode(as_tiff(np.full((4, 4), np.nan, np.float32)))


def test_a_complex_tiff_is_refused(decode: Decode) -> None:
    with pytest.raises(ImageDecodeError, match="no intensities"):
        decode(as_tiff(np.ones((4, 4), np.complex64)))


def test_bool_becomes_black_and_white(decode: Decode) -> None:
    image = decode(as_tiff(GRAY > 127, photometric="minisblack"))

    np.testing.assert_array_equal((GRAY > 127) * 255, image.pixels[..., 0])


def test_white_is_zero_is_turned_round(decode: Decode) -> None:
    image = decode(as_tiff(GRAY, photometric="miniswhite"))

    np.testing.assert_array_equal(255 - GRAY, image.pixels[..., 0])


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_alpha_of_a_tiff_is_left_out_and_said(planarconfig: str, decode: Decode) -> None:
    samples = np.concatenate([RGB, np.full((12, 20, 1), 9, np.uint8)], axis=-1)
    if planarconfig == "separate":
        samples = np.moveaxis(samples, -1, 0)

    image = decode(
        as_tiff(samples, photometric="rgb", planarconfig=planarconfig, extrasamples=["unassalpha"])
    )

    np.testing.assert_array_equal(RGB, image.pixels)
    assert image.notes == ("The alpha channel was left out.",)


def test_five_channels_give_the_first_three_and_say_so(decode: Decode) -> None:
    samples = RANDOM.integers(0, 4096, (5, 12, 20), np.uint16)

    image = decode(as_tiff(samples, imagej=True, metadata={"axes": "CYX"}))

    np.testing.assert_array_equal(np.moveaxis(samples[:3], 0, -1), image.pixels)
    assert image.notes == ("Channels 0, 1, 2 of 0 to 4 were used.",)


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}], ids=["imagej", "ome"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_any_plane_and_channel_of_a_hyperstack_is_found(
    options: dict[str, bool], compression: str | None, decode: Decode
) -> None:
    samples = RANDOM.integers(0, 4096, (2, 3, 4, 12, 20), np.uint16)
    content = as_tiff(samples, metadata={"axes": "TZCYX"}, compression=compression, **options)

    usual = decode(content, channels=(3,))
    chosen = decode(content, plane=5, channels=(2, 0))

    np.testing.assert_array_equal(samples[0, 1, 3], usual.pixels[..., 0])
    np.testing.assert_array_equal(samples[1, 2, [2, 0]], np.moveaxis(chosen.pixels, -1, 0))
    assert usual.notes[0] == "Plane 1 of 0 to 5 was used."


def test_channels_of_an_rgb_picture_are_its_colours(decode: Decode) -> None:
    image = decode(saved(RGB, "PNG"), channels=(2,))

    np.testing.assert_array_equal(RGB[..., 2:], image.pixels)
    assert image.notes == ("Channel 2 of 0 to 2 was used.",)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"plane": 3}, "has 3 planes, so there is no plane 3; choose from 0 to 2"),
        ({"plane": -1}, "has 3 planes, so there is no plane -1"),
        ({"channels": (0, 2)}, "has 2 channels, so there is no channel 2; choose from 0 to 1"),
    ],
)
def test_a_plane_or_channel_that_is_not_there_says_how_many_are(
    asked: dict[str, object], sentence: str, decode: Decode
) -> None:
    samples = RANDOM.integers(0, 4096, (3, 2, 12, 20), np.uint16)

    with pytest.raises(ImageDecodeError, match=sentence):
        decode(as_tiff(samples, imagej=True, metadata={"axes": "ZCYX"}), **asked)


def test_a_second_plane_of_a_png_is_not_there(decode: Decode) -> None:
    with pytest.raises(ImageDecodeError, match="has 1 plane, so there is no plane 1"):
        decode(saved(GRAY, "PNG"), plane=1)


def test_a_picture_over_the_cap_is_refused_by_its_header(decode: Decode) -> None:
    with pytest.raises(ImageTooLarge, match=r"60000 x 60000 pixels .* MAX_IMAGE_MEGAPIXELS"):
        decode(png_header(60_000, 60_000))


def test_a_tiff_over_the_cap_is_refused_by_its_header(decode: Decode) -> None:
    content = as_tiff(GRAY, extratags=[])
    huge = content.replace(
        struct.pack("<HHIH", 256, 4, 1, 20)[:8] + struct.pack("<I", 20),
        struct.pack("<HHI", 256, 4, 1) + struct.pack("<I", 4_000_000),
    )
    assert huge != content

    with pytest.raises(ImageTooLarge, match="4000000 x 12 pixels"):
        decode(huge)


def test_a_page_of_many_samples_is_refused_by_its_header(decode: Decode) -> None:
    samples = np.zeros((100, 1000, 1000), np.uint8)

    with pytest.raises(ImageTooLarge, match="separate pages"):
        decode(as_tiff(samples, photometric="minisblack", planarconfig="separate",
                       compression="zlib"))  # fmt: skip


def test_an_ome_tiff_never_opens_the_files_that_it_names(tmp_path: Path, decode: Decode) -> None:
    tifffile.imwrite(tmp_path / "secret.ome.tif", np.full((2, 12, 20), 7, np.uint8), ome=True)
    xml = tifffile.TiffFile(tmp_path / "secret.ome.tif").ome_metadata
    assert xml is not None
    xml = xml.replace(
        '<TiffData IFD="0" PlaneCount="2"/>',
        '<TiffData IFD="0" FirstZ="0"/><TiffData IFD="1" FirstZ="1">'
        '<UUID FileName="secret.ome.tif">urn:uuid:1</UUID></TiffData>',
    )
    assert "secret" in xml
    content = as_tiff(GRAY, description=xml.encode(), metadata=None)

    try:
        image = decode(content, plane=1)
    except ImageDecodeError:
        return

    assert not (image.pixels == 7).all()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"error": 1}', "JSON text"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "none of the image formats"),
        (b"hello", "none of the image formats"),
        (b"II*\0", "TIFF file is damaged"),
        (b"\x89PNG\r\n\x1a\n", "PNG file is damaged"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WEBP file"),
    ],
)
def test_what_is_no_image_is_refused_by_what_it_is(
    content: bytes, sentence: str, decode: Decode
) -> None:
    with pytest.raises(ImageDecodeError, match=sentence):
        decode(content)


def test_a_file_that_has_gone_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImageDecodeError, match="try again"):
        decode_image(tmp_path / "gone", max_megapixels=1)


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg", "lzw"])
def test_a_truncated_tiff_is_refused(compression: str | None, decode: Decode) -> None:
    pixels = RANDOM.integers(0, 256, (64, 64), np.uint8)
    content = as_tiff(pixels, compression=compression, metadata=None)

    with pytest.raises(ImageDecodeError, match="truncated"):
        decode(content[:-100])


SAMPLES = {
    "png": saved(RGB, "PNG"),
    "deep png": imagecodecs.png_encode(RGB.astype(np.uint16) * 257),
    "jpeg": saved(RGB, "JPEG"),
    "webp": saved(RGB, "WEBP"),
    "gif": saved(GRAY, "GIF"),
    "bmp": saved(RGB, "BMP"),
    "ppm": saved(RGB, "PPM"),
    "tiff": as_tiff(RGB),
    "tiff zlib": as_tiff(RGB, compression="zlib", tile=(16, 16)),
    "ome": as_tiff(np.stack([GRAY, GRAY]), ome=True),
    "imagej": as_tiff(np.stack([GRAY, GRAY]), imagej=True),
    "bigtiff": as_tiff(GRAY, bigtiff=True),
}


def refusal_of(path: Path) -> str | None:
    """Return the sentence of a refusal, None for an image; any other error is the test's."""
    try:
        decode_image(path, max_megapixels=1)
    except (ImageDecodeError, ImageTooLarge) as error:
        return error.message
    return None


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


@pytest.mark.parametrize("name", sorted(SAMPLES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_raises_nothing_but_an_image_error(
    name: str, data: st.DataObject, scratch: Path
) -> None:
    content = SAMPLES[name]
    scratch.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])

    sentence = refusal_of(scratch)

    assert sentence is None or sentence.endswith(".")


@pytest.mark.parametrize("name", sorted(SAMPLES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_file_with_changed_bytes_raises_nothing_but_an_image_error(
    name: str, data: st.DataObject, scratch: Path
) -> None:
    content = bytearray(SAMPLES[name])
    for _ in range(3):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    scratch.write_bytes(content)

    sentence = refusal_of(scratch)

    assert sentence is None or sentence.endswith(".")
