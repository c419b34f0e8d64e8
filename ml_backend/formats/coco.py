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
from ml_backend.formats.coco_rle import ColumnRuns, Frame
from ml_backend.geometry.patches import Patch
from ml_backend.geometry.shapes import Shape, trace_shapes

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
    as_rle: bool = False,
) -> Iterator[CocoObject]:
    """Yield the instances of a (Y, X) label image, 0 = background, in the order of the labels.

    Args:
        labels: The instances; a number without pixels is left out.
        categories: The id of all, or (N,) of each: categories[i] belongs to instance i + 1.
        scores: (N,) in 0..1.
        as_rle: Whether every segmentation is RLE, not only those of instances with holes.
    """
    columns = ColumnRuns(labels)
    for shape in trace_shapes(labels):
        index = shape.label - 1
        rle = as_rle or shape.has_holes
        yield _object(
            shape,
            columns.rle(shape.label) if rle else None,
            category=categories if isinstance(categories, int) else categories[index],
            score=None if scores is None else round(float(scores[index]), 4),
            more={"label": shape.label},
        )


def object_of(
    patch: Patch,
    *,
    height: int,
    width: int,
    category: int,
    score: float | None = None,
    as_rle: bool = False,
    more: Mapping[str, Any] | None = None,
) -> CocoObject | None:
    """Return the instance of one mask, None for an empty one.

    Args:
        patch: The mask.
        height: Of the image in pixels.
        width: Of the image in pixels.
        category: Id of its class.
        score: 0..1; None = a person drew it.
        as_rle: Whether its segmentation is RLE even without holes.
        more: Further fields of the annotation.
    """
    shape = next(trace_shapes(patch.mask.astype(np.int32)), None)
    if shape is None:
        return None
    moved = shape.moved(x=patch.x, y=patch.y)
    rle = None
    if as_rle or shape.has_holes:
        frame = Frame(height=height, width=width, y=patch.y, x=patch.x)
        rle = ColumnRuns(patch.mask.astype(np.int32), frame).rle(1)
    return _object(moved, rle, category=category, score=score, more=more or {})


def coco_dataset(
    images: Sequence[CocoImage],
    categories: Sequence[CocoCategory],
    *,
    info: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a data set as COCO's JSON; `write_coco` is for those that do not fit in memory."""
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        for one in image.objects:
            annotations.append(_annotation(one, len(annotations) + 1, number))
    return {
        "info": dict(info or {}),
        "images": [_image(image, number) for number, image in enumerate(images, start=1)],
        "annotations": annotations,
        "categories": [_category(category) for category in categories],
    }


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


def _object(
    shape: Shape,
    rle: Segmentation | None,
    *,
    category: int,
    score: float | None,
    more: Mapping[str, Any],
) -> CocoObject:
    left, top, right, bottom = shape.bounds
    return CocoObject(
        category=category,
        segmentation=rle or [part[0].ravel().tolist() for part in shape.parts],
        area=shape.area,
        box=(left, top, right - left, bottom - top),
        score=score,
        more=more,
    )


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
