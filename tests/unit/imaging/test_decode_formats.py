"""Every file of ../shared/data/formats is decoded as its index says, or refused in one sentence."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from ml_backend.errors import ImageDecodeError, ImageTooLarge
from ml_backend.imaging.decode import decode_image
from tests.shared_data import SHARED, needs_data

pytestmark = [pytest.mark.data, needs_data]

FORMATS = SHARED / "formats"
PILLOW = FORMATS / "pillow"

# ((Y, X, C), data type), or the sentence of the refusal
EXPECTED: dict[str, tuple[tuple[int, int, int], str] | str] = {
    "CMU-1-Small-Region.svs": ((2967, 2220, 3), "uint8"),
    "ecoli_TCYX_imagej.tif": ((256, 256, 2), "uint16"),
    "ecoli_ds1_00001_CYX.ome.tif": ((512, 512, 2), "uint16"),
    "instanseg_2ch_imagej.tif": ((450, 450, 2), "uint8"),
    "instanseg_he_tiled.ome.tif": ((1484, 1380, 3), "uint8"),
    "multi-channel-z-series.ome.tif": ((167, 439, 3), "int8"),
    "ovule_membrane_ZYX.ome.tif": ((128, 128, 1), "uint8"),
    "ovule_membrane_ZYX_labels.tif": ((128, 128, 1), "uint16"),
    "phase_set13_raw16.tif": ((1022, 1024, 1), "uint16"),
    "pillow/10ct_32bit_128.tiff": ((128, 128, 1), "float32"),
    "pillow/12bit.cropped.tif": ((100, 100, 1), "uint16"),
    "pillow/16_bit_binary_pgm.tiff": ((100, 20, 1), "int32"),
    "pillow/16_bit_noise.tif": ((32, 32, 1), "uint16"),
    "pillow/16bit.MM.cropped.tif": ((64, 64, 1), "uint16"),
    "pillow/16bit.cropped.tif": ((64, 64, 1), "uint16"),
    "pillow/broken.png": "The PNG file is damaged or of an unknown kind (its header is broken).",
    "pillow/dispose_bgnd.gif": ((100, 100, 3), "uint8"),
    "pillow/empty_gps_ifd.jpg": ((10, 10, 3), "uint8"),
    "pillow/hopper.bmp": ((128, 128, 3), "uint8"),
    "pillow/hopper.gif": ((128, 128, 3), "uint8"),
    "pillow/hopper.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper.png": ((128, 128, 3), "uint8"),
    "pillow/hopper.tif": ((128, 128, 3), "uint8"),
    "pillow/hopper.webp": ((128, 128, 3), "uint8"),
    "pillow/hopper_16bit.pgm": ((128, 128, 1), "uint16"),
    "pillow/hopper_bigtiff.tif": ((128, 128, 3), "uint8"),
    "pillow/hopper_float_dpi_None.tif": ((128, 128, 3), "uint8"),
    "pillow/hopper_gray_4bpp.tif": ((128, 128, 1), "uint8"),
    "pillow/hopper_jpg.tif": ((128, 128, 3), "uint8"),
    "pillow/hopper_lzma.tif": ((128, 128, 3), "uint8"),
    "pillow/hopper_lzw.tif": ((128, 128, 3), "uint8"),
    "pillow/hopper_orientation_2.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper_orientation_3.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper_orientation_4.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper_orientation_5.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper_orientation_6.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper_orientation_7.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper_orientation_8.jpg": ((128, 128, 3), "uint8"),
    "pillow/hopper_webp.tif": ((128, 128, 3), "uint8"),
    "pillow/ignore_frame_size.mpo": ((64, 64, 3), "uint8"),
    "pillow/multipage-mmap.tiff": ((10, 10, 3), "uint8"),
    "pillow/multipage.tiff": ((10, 10, 3), "uint8"),
    "pillow/old-style-jpeg-compression.tif": ((870, 4160, 3), "uint8"),
    "pillow/rgb_trns.png": ((64, 64, 3), "uint8"),
    "pillow/separate_planar_extra_samples.tiff": ((50, 50, 2), "int8"),
    "pillow/tiff_16bit_RGB.tiff": ((40, 100, 3), "uint16"),
    "pillow/tiff_strip_cmyk_jpeg.tif": ((100, 100, 3), "uint8"),
    "pillow/tiff_strip_planar_16bit_RGBa.tiff": ((40, 100, 3), "uint16"),
    "pillow/tiff_tiled_planar_16bit_RGB.tiff": ((40, 100, 3), "uint16"),
    "pillow/transparent.png": ((150, 200, 3), "uint8"),
    "pillow/truncated_image.png": "The PNG file is truncated: it ends before its pixels do.",
    "pillow/truncated_jpeg.jpg": "The JPEG file is truncated: it ends before its pixels do.",
    "stardist_img3d_zstack16.tif": ((61, 57, 1), "uint16"),
    "stardist_mask3d_labels16.tif": ((61, 57, 1), "uint16"),
}


def pixels_of(
    path: Path, *, plane: int | None = None, channels: tuple[int, ...] | None = None
) -> np.ndarray:
    return decode_image(path, plane=plane, channels=channels, max_megapixels=150).pixels


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def test_the_table_names_every_file() -> None:
    with (FORMATS / "index.csv").open() as file:
        names = {row["file"] for row in csv.DictReader(file)}

    assert names == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_file_is_decoded_or_refused_as_expected(name: str) -> None:
    expected = EXPECTED[name]

    if isinstance(expected, str):
        with pytest.raises(ImageDecodeError) as caught:
            decode_image(FORMATS / name, max_megapixels=150)
        assert expected == caught.value.message
        return
    image = decode_image(FORMATS / name, max_megapixels=150)

    assert expected == (image.pixels.shape, image.pixels.dtype.name)
    assert image.pixels.flags.c_contiguous
    assert image.pixels.dtype.isnative
    assert all(note.endswith(".") for note in image.notes)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_orientation_shows_the_upright_picture(orientation: int) -> None:
    upright = pixels_of(PILLOW / "hopper.jpg")

    turned = pixels_of(PILLOW / f"hopper_orientation_{orientation}.jpg")

    assert mean_difference(upright, turned) < 6  # saved with another JPEG quality


@pytest.mark.parametrize(
    "name",
    ["hopper.tif", "hopper_bigtiff.tif", "hopper_lzw.tif", "hopper_lzma.tif", "hopper_jpg.tif",
     "hopper_webp.tif", "hopper.webp", "hopper.bmp", "hopper.gif", "hopper.png"],
)  # fmt: skip
def test_the_same_picture_in_many_formats_is_the_same(name: str) -> None:
    upright = pixels_of(PILLOW / "hopper.jpg")

    assert mean_difference(upright, pixels_of(PILLOW / name)) < 6


@pytest.mark.parametrize(
    "name", ["tiff_strip_cmyk_jpeg.tif", "old-style-jpeg-compression.tif", "multipage.tiff"]
)
def test_inks_old_jpeg_and_palettes_become_the_rgb_that_pillow_shows(name: str) -> None:
    with PillowImage.open(PILLOW / name) as image:
        expected = np.asarray(image.convert("RGB"))

    assert mean_difference(expected, pixels_of(PILLOW / name, plane=0)) < 0.2


@pytest.mark.parametrize(
    ("name", "plane", "channels", "index"),
    [
        ("stardist_img3d_zstack16.tif", None, None, (15,)),
        ("stardist_img3d_zstack16.tif", 30, None, (30,)),
        ("ovule_membrane_ZYX.ome.tif", 3, None, (3,)),
        ("multi-channel-z-series.ome.tif", None, (2,), (2, 2)),
        ("multi-channel-z-series.ome.tif", 4, (0,), (0, 4)),
        ("ecoli_TCYX_imagej.tif", None, (1,), (0, 1)),
        ("ecoli_TCYX_imagej.tif", 2, (0,), (2, 0)),
        ("instanseg_2ch_imagej.tif", None, (1,), (1,)),
    ],
)
def test_a_plane_and_channel_are_those_of_the_whole_stack(
    name: str, plane: int | None, channels: tuple[int, ...] | None, index: tuple[int, ...]
) -> None:
    whole = tifffile.imread(FORMATS / name)

    pixels = pixels_of(FORMATS / name, plane=plane, channels=channels)

    np.testing.assert_array_equal(whole[index], pixels[..., 0])


def test_what_was_taken_from_a_stack_is_said() -> None:
    image = decode_image(
        FORMATS / "multi-channel-z-series.ome.tif", channels=(0,), max_megapixels=150
    )

    assert image.notes == ("Plane 2 of 0 to 4 was used.", "Channel 0 of 0 to 2 was used.")


def test_a_slide_over_the_cap_is_refused_by_its_header() -> None:
    with pytest.raises(ImageTooLarge, match="2220 x 2967 pixels"):
        decode_image(FORMATS / "CMU-1-Small-Region.svs", max_megapixels=6)
