"""COCO instances as JSON: images, annotations, categories; for one image or a whole project.

Outlines follow pixel edges, which is what pycocotools means by coordinates. An instance without
holes is a list of polygons, which every reader of COCO knows; one with holes, which polygons cannot
say, is compressed RLE. Either way `annToMask` of pycocotools gives the mask back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from ml_backend.domain import LabelImage
from ml_backend.formats.coco_rle import ColumnRuns
from ml_backend.geometry.shapes import trace_shapes

Segmentation = list[list[int]] | dict[str, Any]
"""Polygons as x, y, x, y, ... each, or {"size": [height, width], "counts": compressed text}."""


@dataclass(frozen=True, kw_only=True)
class CocoCategory:
    """A class."""

    id: int  # from 1
    name: str
    supercategory: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoObject:
    """An instance; those of one image may overlap."""

    category: int  # id
    segmentation: Segmentation
    area: int  # pixels
    box: tuple[int, int, int, int]  # left, top, width, height
    score: float | None = None  # 0..1; None = a person drew it
    is_crowd: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)  # further fields of the annotation


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoImage:
    """An image and its instances, which may be made while they are written."""

    file_name: str
    height: int
    width: int
    objects: Iterable[CocoObject]
    more: Mapping[str, Any] = field(default_factory=dict)  # further fields of the image


def objects_in(
    labels: LabelImage,
    *,
    categories: int | Sequence[int] = 1,
    scores: npt.NDArray[np.float32] | None = None,
) -> Iterator[CocoObject]:
    """Yield the instances of a (Y, X) label image, 0 = background, in the order of the labels.

    Args:
        labels: The instances; a number without pixels is left out.
        categories: The id of all, or (N,) of each: categories[i] belongs to instance i + 1.
        scores: (N,) in 0..1.
    """
    columns = ColumnRuns(labels)
    for shape in trace_shapes(labels):
        index = shape.label - 1
        left, top, right, bottom = shape.bounds
        yield CocoObject(
            category=categories if isinstance(categories, int) else categories[index],
            segmentation=(
                columns.rle(shape.label)
                if shape.has_holes
                else [part[0].ravel().tolist() for part in shape.parts]
            ),
            area=shape.area,
            box=(left, top, right - left, bottom - top),
            score=None if scores is None else round(float(scores[index]), 4),
            more={"label": shape.label},
        )


def write_coco(
    file: BinaryIO,
    images: Iterable[CocoImage],
    categories: Sequence[CocoCategory],
    *,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a data set as COCO's JSON, holding one instance at a time."""
    described = []
    annotations = 0
    file.write(b'{"info":' + orjson.dumps(dict(info or {})) + b',"annotations":[')
    for number, image in enumerate(images, start=1):
        described.append(_image(image, number))
        for one in image.objects:
            annotations += 1
            file.write(b",\n" if annotations > 1 else b"\n")
            file.write(orjson.dumps(_annotation(one, annotations, number)))
    file.write(b'\n],"images":' + orjson.dumps(described))
    file.write(b',"categories":' + orjson.dumps([_category(one) for one in categories]) + b"}\n")


def _annotation(one: CocoObject, number: int, image: int) -> dict[str, Any]:
    annotation: dict[str, Any] = {
        **one.more,
        "id": number,
        "image_id": image,
        "category_id": one.category,
        "segmentation": one.segmentation,
        "area": one.area,
        "bbox": list(one.box),
        "iscrowd": int(one.is_crowd),
    }
    if one.score is not None:
        annotation["score"] = one.score
    return annotation


def _image(image: CocoImage, number: int) -> dict[str, Any]:
    return {
        **image.more,
        "id": number,
        "file_name": image.file_name,
        "height": image.height,
        "width": image.width,
    }


def _category(category: CocoCategory) -> dict[str, Any]:
    return {
        "id": category.id,
        "name": category.name,
        "supercategory": category.supercategory,
    }
