"""COCO as pycocotools reads it: masks come back, whatever form their outlines have."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools.coco import COCO

from ml_backend.domain import LabelImage
from ml_backend.formats.coco import (
    CocoCategory,
    CocoImage,
    objects_in,
    write_coco,
)
from tests.label_images import blobs, draw_cells, noise

CELL = [CocoCategory(id=1, name="cell")]


def image_of(labels: LabelImage) -> CocoImage:
    """Return an image with the instances of a label image."""
    height, width = labels.shape
    return CocoImage(file_name="a.png", height=height, width=width, objects=objects_in(labels))


def written(images: list[CocoImage]) -> dict[str, Any]:
    """Return what is written of images, read again."""
    file = io.BytesIO()
    write_coco(file, images, CELL)
    dataset: dict[str, Any] = json.loads(file.getvalue())
    return dataset


def read(dataset: dict[str, Any]) -> COCO:
    """Return a data set as pycocotools reads it."""
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def masks_in(dataset: dict[str, Any], image: int = 1) -> LabelImage:
    """Return the label image that the annotations of an image make."""
    coco = read(dataset)
    info = coco.imgs[image]
    labels = np.zeros((info["height"], info["width"]), np.int32)
    for annotation in coco.imgToAnns[image]:
        labels[coco.annToMask(annotation).astype(bool)] = annotation["label"]
    return labels


@given(labels=noise(max_side=12, max_label=3))
@settings(max_examples=200, deadline=None)
def test_any_label_image_comes_back(labels: LabelImage) -> None:
    dataset = written([image_of(labels)])

    assert np.array_equal(masks_in(dataset), labels)


@given(labels=blobs())
@settings(max_examples=25, deadline=None)
def test_cells_come_back(labels: LabelImage) -> None:
    dataset = written([image_of(labels)])

    assert np.array_equal(masks_in(dataset), labels)
    for annotation in dataset["annotations"]:
        mask = labels == annotation["label"]
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation["bbox"]
        assert annotation["area"] == mask.sum()
        assert (left, top) == (columns.min(), rows.min())
        assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_a_ring_that_fills_the_frame_comes_back() -> None:
    labels = np.ones((5, 4), np.int32)
    labels[2, 1] = 0

    dataset = written([image_of(labels)])

    assert np.array_equal(masks_in(dataset), labels)
    assert dataset["annotations"][0]["segmentation"]["size"] == [5, 4]


def test_only_holes_make_run_lengths_necessary() -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[0:4, 0:4] = 1
    labels[1:3, 1:3] = 0
    labels[6:8, 0:2] = labels[6:8, 4:6] = 2  # two parts

    ring, parts = objects_in(labels)

    assert isinstance(ring.segmentation, dict)
    assert parts.segmentation == [[0, 6, 2, 6, 2, 8, 0, 8], [4, 6, 6, 6, 6, 8, 4, 8]]


def test_several_images_share_one_file(tmp_path: Path) -> None:
    first = draw_cells(seed=1, count=8, height=60, width=70, radius=7)
    second = draw_cells(seed=2, count=5, height=50, width=40, radius=6)
    scores = np.linspace(0.1, 0.9, int(second.max()), dtype=np.float32)
    categories = [CocoCategory(id=1, name="cell"), CocoCategory(id=2, name="debris")]
    kinds = [1 + n % 2 for n in range(int(second.max()))]
    path = tmp_path / "data.json"

    with path.open("wb") as file:
        write_coco(
            file,
            (
                image_of(first),
                CocoImage(
                    file_name="b.png",
                    height=50,
                    width=40,
                    objects=objects_in(second, categories=kinds, scores=scores),
                    more={"task": 7},
                ),
            ),
            categories,
            info={"description": "cells"},
        )

    coco = COCO(str(path))
    assert np.array_equal(masks_in(coco.dataset, 1), first)
    assert np.array_equal(masks_in(coco.dataset, 2), second)
    assert coco.imgs[2] == {"id": 2, "file_name": "b.png", "height": 50, "width": 40, "task": 7}
    assert [one["category_id"] for one in coco.imgToAnns[2]] == kinds
    assert [one["score"] for one in coco.imgToAnns[2]] == pytest.approx(scores, abs=1e-4)
    assert len(coco.anns) == first.max() + second.max()
    assert all("score" not in one for one in coco.imgToAnns[1])
    assert coco.dataset["info"] == {"description": "cells"}


def test_an_image_without_instances_is_an_image_all_the_same() -> None:
    dataset = written([image_of(np.zeros((4, 5), np.int32))])

    assert dataset["annotations"] == []
    assert [image["file_name"] for image in dataset["images"]] == ["a.png"]
