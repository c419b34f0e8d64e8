"""Every format that the masks of one image can be written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Final

from ml_backend.domain import Segmentation
from ml_backend.formats.coco import CocoCategory, CocoImage, objects_in, write_coco
from ml_backend.formats.geojson import write_geojson
from ml_backend.formats.imagej_rois import write_rois
from ml_backend.formats.label_png import write_label_png
from ml_backend.formats.label_tiff import write_label_tiff
from ml_backend.formats.label_type import compact
from ml_backend.formats.numpy_file import write_npy

CELL: Final = CocoCategory(id=1, name="cell")
"""The one class that instances have."""

JSON_TYPE: Final = "application/json"
NPY_TYPE: Final = "application/octet-stream"
PNG_TYPE: Final = "image/png"
ZIP_TYPE: Final = "application/zip"


class MaskFormat(StrEnum):
    """File formats of masks."""

    NPY = "npy"
    PNG = "png"
    TIFF = "tiff"
    ROI = "roi"
    GEOJSON = "geojson"
    COCO = "coco"


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """What files of a format are called."""

    ending: str  # after the image's name
    media_type: str
    is_packed: bool = False  # packing it into an archive saves nothing


FILE_KINDS: Final[Mapping[MaskFormat, FileKind]] = {
    MaskFormat.NPY: FileKind(ending="_masks.npy", media_type=NPY_TYPE),
    MaskFormat.PNG: FileKind(ending="_masks.png", media_type=PNG_TYPE, is_packed=True),
    MaskFormat.TIFF: FileKind(ending="_masks.tif", media_type="image/tiff", is_packed=True),
    MaskFormat.ROI: FileKind(ending="_rois.zip", media_type=ZIP_TYPE),
    MaskFormat.GEOJSON: FileKind(ending="_masks.geojson", media_type="application/geo+json"),
    MaskFormat.COCO: FileKind(ending="_coco.json", media_type=JSON_TYPE),
}


def write_masks(file: BinaryIO, kind: MaskFormat, found: Segmentation, *, image_name: str) -> None:
    """Write the instances of one image.

    Args:
        file: Where to; it can be sought.
        kind: The format.
        found: The instances.
        image_name: Name of the image's file, where the format has room for it.

    Raises:
        ImageError: the format cannot hold them.
    """
    if kind is MaskFormat.NPY:
        write_npy(file, compact(found.labels))
    elif kind is MaskFormat.PNG:
        write_label_png(file, found.labels)
    elif kind is MaskFormat.TIFF:
        write_label_tiff(file, found.labels)
    elif kind is MaskFormat.ROI:
        write_rois(file, found.labels, found.scores)
    elif kind is MaskFormat.GEOJSON:
        write_geojson(file, found.labels, found.scores, name=image_name)
    else:
        write_coco(file, [coco_image(found, image_name)], [CELL])


def coco_image(found: Segmentation, image_name: str) -> CocoImage:
    """Return the instances of one image for `write_coco`, all of the class `CELL`."""
    height, width = found.labels.shape
    objects = objects_in(found.labels, categories=CELL.id, scores=found.scores)
    return CocoImage(file_name=image_name, height=height, width=width, objects=objects)
