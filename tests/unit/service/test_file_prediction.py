"""Masks for image files: where they go, and what happens when they cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from ml_backend.domain import (
    BlockOfPositions,
    Component,
    Flows,
    Image,
    Segmentation,
    SegmentationOptions,
    Urgency,
)
from ml_backend.errors import BadRequest, ImageError
from ml_backend.formats.mask_files import MaskFormat
from ml_backend.service.file_prediction import FilePredictor, refuse_equal_targets
from tests.infer_files import READERS
from tests.unit.service.conftest import COMPONENT, decode_square


class OneSquare:
    """Finds one square in every image."""

    def segment(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> Segmentation:
        """Return the square."""
        labels = np.zeros((image.height, image.width), np.int32)
        labels[4:9, 4:9] = 1
        return Segmentation(labels=labels, scores=np.ones(1, np.float32), diameter=5.0)

    def segment_with_flows(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> tuple[Segmentation, Flows]:
        """Return the square and flows that lead nowhere."""
        found = self.segment(image, options, component=component, priority=priority)
        shape = found.labels.shape
        everywhere = BlockOfPositions(
            rows=slice(0, shape[0]), columns=slice(0, shape[1]), ends=np.indices(shape, np.int32)
        )
        nothing = np.zeros((2, *shape), np.float32)
        return found, Flows(
            xy=nothing, cell_probability=nothing[0], final_positions=lambda: iter([everywhere])
        )


class TwoSquares(OneSquare):
    """Finds a sure and an unsure square."""

    def segment(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> Segmentation:
        """Return the squares, the unsure one first."""
        labels = np.zeros((image.height, image.width), np.int32)
        labels[4:9, 4:9] = 1
        labels[20:30, 20:30] = 2
        return Segmentation(labels=labels, scores=np.array([0.3, 0.8], np.float32), diameter=5.0)


PREDICTOR = FilePredictor(decode=decode_square, segmenter=OneSquare(), component=COMPONENT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return an image file."""
    path = tmp_path / "cells.png"
    path.write_bytes(b"pixels")
    return path


@pytest.mark.parametrize(
    ("mask_format", "name"),
    [
        (MaskFormat.TIFF, "cells_masks.tif"),
        (MaskFormat.PNG, "cells_masks.png"),
        (MaskFormat.NPY, "cells_masks.npy"),
        (MaskFormat.ROI, "cells_rois.zip"),
        (MaskFormat.GEOJSON, "cells_masks.geojson"),
        (MaskFormat.COCO, "cells_coco.json"),
    ],
)
def test_masks_and_overlay_are_written_beside_the_file(
    source: Path, mask_format: MaskFormat, name: str
) -> None:
    done = PREDICTOR.predict(
        source, options=SegmentationOptions(), folder=None, mask_format=mask_format
    )

    assert done.count == 1
    assert done.flows == ()
    assert {path.name for path in source.parent.iterdir()} == {
        "cells.png",
        name,
        "cells_overlay.png",
    }
    masks = READERS[mask_format.value]((source.parent / name).read_bytes(), (32, 32))
    assert masks.sum() == 25


def test_flows_are_written_when_asked(source: Path, tmp_path: Path) -> None:
    done = PREDICTOR.predict(
        source,
        options=SegmentationOptions(),
        folder=tmp_path / "new",
        mask_format=MaskFormat.TIFF,
        with_flows=True,
    )

    assert [path.name for path in done.flows] == [
        "cells_flows_hsv.png",
        "cells_flows_xy.npy",
        "cells_flows_cellprob.npy",
        "cells_flows_final_positions.npy",
    ]
    assert np.load(done.flows[1]).shape == (2, 32, 32)
    assert np.array_equal(np.load(done.flows[3]), np.indices((32, 32)))
    assert {path.parent for path in done.flows} == {tmp_path / "new"}
    assert len(list((tmp_path / "new").iterdir())) == 6


@pytest.mark.parametrize(("threshold", "areas"), [(0.0, [25, 100]), (0.3, [25, 100]), (0.5, [100])])
def test_objects_below_the_score_threshold_are_left_out(
    source: Path, threshold: float, areas: list[int]
) -> None:
    predictor = FilePredictor(decode=decode_square, segmenter=TwoSquares(), component=COMPONENT)

    done = predictor.predict(
        source,
        options=SegmentationOptions(),
        folder=None,
        mask_format=MaskFormat.TIFF,
        score_threshold=threshold,
    )

    written = tifffile.imread(done.masks)
    assert done.count == len(areas)
    assert np.bincount(written.ravel())[1:].tolist() == areas


def test_a_folder_that_cannot_be_written_is_a_sentence(source: Path) -> None:
    with pytest.raises(ImageError, match="cannot be written"):
        PREDICTOR.predict(
            source,
            options=SegmentationOptions(),
            folder=source / "inside",
            mask_format=MaskFormat.TIFF,
        )


def test_what_cannot_be_written_leaves_no_half_file(source: Path) -> None:
    (source.parent / "cells_masks.tif").mkdir()

    with pytest.raises(ImageError, match="cannot be written"):
        PREDICTOR.predict(
            source, options=SegmentationOptions(), folder=None, mask_format=MaskFormat.TIFF
        )

    assert not list(source.parent.glob(".*"))


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["a/x.png", "b/x.png"], "out"),
        (["x.png", "x.tif"], None),
        (["x.png", "x.png"], None),
    ],
)
def test_results_that_would_replace_each_other_are_refused(
    files: list[str], folder: str | None
) -> None:
    paths = [Path(file) for file in files]

    with pytest.raises(BadRequest, match=r"x\.png and .* would both be written"):
        refuse_equal_targets(
            paths, folder=Path(folder) if folder else None, mask_format=MaskFormat.TIFF
        )


def test_equal_names_in_other_folders_are_no_trouble() -> None:
    refuse_equal_targets(
        [Path("a/x.png"), Path("b/x.png")], folder=None, mask_format=MaskFormat.TIFF
    )
