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
    coco_dataset,
    object_of,
    objects_in,
    write_coco,
)
from ml_backend.geometry.patches import crop_patch
from tests.label_images import blobs, draw_cells, noise

CELL = [CocoCategory(id=1, name="cell")]


def image_of(labels: LabelImage, *, as_rle: bool = False, name: str = "a.png") -> CocoImage:
    """Return an image with the instances of a label image."""
    height, width = labels.shape
    objects = objects_in(labels, as_rle=as_rle)
    return CocoImage(file_name=name, height=height, width=width, objects=objects)


def read(dataset: dict[str, Any]) -> COCO:
    """Return a data set as pycocotools reads it."""
    coco = COCO()
    coco.dataset = json.loads(json.dumps(dataset))
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


@pytest.mark.parametrize("as_rle", [True, False])
@given(labels=noise(max_side=12, max_label=3))
@settings(max_examples=150, deadline=None)
def test_any_label_image_comes_back(as_rle: bool, labels: LabelImage) -> None:
    dataset = coco_dataset([image_of(labels, as_rle=as_rle)], CELL)

    assert np.array_equal(masks_in(dataset), labels)


@pytest.mark.parametrize("as_rle", [True, False])
@given(labels=blobs())
@settings(max_examples=25, deadline=None)
def test_cells_come_back(as_rle: bool, labels: LabelImage) -> None:
    dataset = coco_dataset([image_of(labels, as_rle=as_rle)], CELL)

    assert np.array_equal(masks_in(dataset), labels)
    for annotation in dataset["annotations"]:
        mask = labels == annotation["label"]
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation["bbox"]
        assert annotation["area"] == mask.sum()
        assert (left, top) == (columns.min(), rows.min())
        assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


@given(labels=noise(max_side=9, max_label=1))
@settings(max_examples=80, deadline=None)
def test_a_mask_of_part_of_the_frame_is_the_same_in_the_frame(labels: LabelImage) -> None:
    frame = np.zeros((20, 23), np.int32)
    frame[4 : 4 + labels.shape[0], 7 : 7 + labels.shape[1]] = labels

    for as_rle in (True, False):
        found = object_of(crop_patch(frame > 0), height=20, width=23, category=1, as_rle=as_rle)
        whole = list(objects_in(frame, as_rle=as_rle))

        if found is None:
            assert not labels.any()
            continue
        assert (found.segmentation, found.area, found.box) == (
            whole[0].segmentation,
            whole[0].area,
            whole[0].box,
        )


def test_a_mask_that_fills_the_frame_is_one_run() -> None:
    (found,) = objects_in(np.ones((3, 4), np.int32), as_rle=True)

    assert isinstance(found.segmentation, dict)
    assert found.segmentation["size"] == [3, 4]
    assert np.array_equal(
        masks_in(coco_dataset([image_of(np.ones((3, 4), np.int32))], CELL)), np.ones((3, 4))
    )


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


def test_what_is_written_is_what_the_dataset_says() -> None:
    labels = draw_cells(seed=3, count=8, height=60, width=70, radius=7)
    file = io.BytesIO()

    write_coco(file, [image_of(labels), image_of(labels)], CELL)

    assert json.loads(file.getvalue()) == json.loads(
        json.dumps(coco_dataset([image_of(labels), image_of(labels)], CELL))
    )


def test_an_image_without_instances_is_an_image_all_the_same() -> None:
    file = io.BytesIO()

    write_coco(file, [image_of(np.zeros((4, 5), np.int32))], CELL)

    dataset = json.loads(file.getvalue())
    assert dataset["annotations"] == []
    assert [image["file_name"] for image in dataset["images"]] == ["a.png"]
