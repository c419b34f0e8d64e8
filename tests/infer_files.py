"""Reads what /api/v1/infer answers back into label images, as other programs would."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import httpx
import numpy as np
import tifffile
from pycocotools.coco import COCO
from roifile import ImagejRoi

from ml_backend.domain import LabelImage
from ml_backend.geometry.filling import polygon_to_mask


def npy_text(array: np.ndarray) -> str:
    """Return an array as the base64 of an NPY file."""
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode()


def array_in(text: str) -> np.ndarray:
    """Return the array in the base64 of an NPY file."""
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)


def _json(data: bytes, shape: tuple[int, int]) -> LabelImage:
    return array_in(json.loads(data)["items"][0]["masks"])


def _npy(data: bytes, shape: tuple[int, int]) -> LabelImage:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _png(data: bytes, shape: tuple[int, int]) -> LabelImage:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def _tiff(data: bytes, shape: tuple[int, int]) -> LabelImage:
    return tifffile.imread(io.BytesIO(data))


def _roi(data: bytes, shape: tuple[int, int]) -> LabelImage:
    labels = np.zeros(shape, np.int32)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            roi = ImagejRoi.frombytes(archive.read(name))
            rings = roi.coordinates(multi=True) if roi.composite else [roi.coordinates()]
            _fill(labels, [np.asarray(ring, float) for ring in rings], int(roi.name))
    return labels


def _geojson(data: bytes, shape: tuple[int, int]) -> LabelImage:
    labels = np.zeros(shape, np.int32)
    for feature in json.loads(data)["features"]:
        geometry = feature["geometry"]
        polygons = geometry["coordinates"]
        for polygon in polygons if geometry["type"] == "MultiPolygon" else [polygons]:
            rings = [np.asarray(ring[:-1], float) for ring in polygon]
            _fill(labels, rings, feature["properties"]["measurements"]["Label"])
    return labels


def _coco(data: bytes, shape: tuple[int, int]) -> LabelImage:
    coco = COCO()
    coco.dataset = json.loads(data)
    coco.createIndex()
    labels = np.zeros(shape, np.int32)
    for annotation in coco.dataset["annotations"]:
        left, top, width, height = annotation["bbox"]
        box = labels[top : top + height, left : left + width]
        mask = coco.annToMask(annotation)[top : top + height, left : left + width]
        box[mask.astype(bool)] = annotation["label"]
    return labels


def _fill(labels: LabelImage, rings: list[np.ndarray], label: int) -> None:
    """Fill rings by the even-odd rule, in the box around them."""
    points = np.concatenate(rings)
    left, top = points.min(axis=0).astype(int)
    right, bottom = points.max(axis=0).astype(int)
    inside = np.zeros((bottom - top, right - left), np.bool_)
    for ring in rings:
        inside ^= polygon_to_mask(ring - [left, top], *inside.shape)
    labels[top:bottom, left:right][inside] = label


READERS: Mapping[str, Callable[[bytes, tuple[int, int]], LabelImage]] = {
    "json": _json,
    "npy": _npy,
    "png": _png,
    "tiff": _tiff,
    "roi": _roi,
    "geojson": _geojson,
    "coco": _coco,
}
"""By format: (the answer's body, height and width) -> the label image that it says."""

MEDIA_TYPES: Mapping[str, str] = {
    "json": "application/json",
    "npy": "application/octet-stream",
    "png": "image/png",
    "tiff": "image/tiff",
    "roi": "application/zip",
    "geojson": "application/geo+json",
    "coco": "application/json",
}


def masks_of(answer: httpx.Response, kind: str, shape: tuple[int, int]) -> LabelImage:
    """Return the label image that an answer says."""
    assert answer.status_code == 200, answer.text[:500]
    assert answer.headers["content-type"] == MEDIA_TYPES[kind]
    assert len(answer.content) == int(answer.headers["content-length"])
    masks: Any = READERS[kind](answer.content, shape)
    assert masks.shape == shape
    return masks.astype(np.int32)
