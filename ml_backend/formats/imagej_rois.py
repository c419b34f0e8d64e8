"""ImageJ's ROIs: a zip with one for each instance, as Fiji's ROI Manager opens and saves them.

An instance in one part without a hole is a traced ROI, whose whole-number points are corners of
pixels, as those of ImageJ's own wand are. One with holes or in several parts is a composite ROI.
ImageJ fills both by the pixel-centre rule, so that masks come back exactly.
"""

from __future__ import annotations

import zipfile
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

from ml_backend.domain import LabelImage
from ml_backend.geometry.shapes import Shape, trace_shapes

_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # how ImageJ numbers the steps of a path
_LARGEST_WHOLE = 60_535  # ImageJ's limit for whole-number points; beyond it they are floats
_MOMENT = (1980, 1, 1, 0, 0, 0)  # of every entry: the same masks give the same file


def write_rois(
    file: BinaryIO, labels: LabelImage, scores: npt.NDArray[np.float32] | None = None
) -> None:
    """Write the instances of a (Y, X) label image as a zip of ROIs named by their numbers.

    Args:
        file: Where to.
        labels: 0 = background.
        scores: (N,) in 0..1; scores[i] belongs to instance i + 1 and becomes its ROI's property.
    """
    digits = max(4, len(str(int(labels.max(initial=0)))))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for shape in trace_shapes(labels):
            roi = _traced(shape) if _is_simple(shape) else _composite(shape)
            roi.name = f"{shape.label:0{digits}d}"
            roi.options |= ROI_OPTIONS.OVERLAY_LABELS
            if scores is not None:
                roi.props = f"score: {scores[shape.label - 1]:.4f}\n"
            archive.writestr(zipfile.ZipInfo(f"{roi.name}.roi", _MOMENT), roi.tobytes())


def _is_simple(shape: Shape) -> bool:
    return len(shape.parts) == 1 and not shape.has_holes


def _traced(shape: Shape) -> ImagejRoi:
    ((points,),) = shape.parts
    roi = _with_bounds(shape, ROI_TYPE.TRACED)
    roi.n_coordinates = len(points)
    roi.integer_coordinates = points - points.min(axis=0)
    if points.max() > _LARGEST_WHOLE:
        roi.options |= ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        roi.subpixel_coordinates = points.astype(np.float32)
    return roi


def _composite(shape: Shape) -> ImagejRoi:
    path: list[npt.NDArray[np.float32]] = []
    for part in shape.parts:
        for ring in part:
            steps = np.full((len(ring), 3), _LINE, dtype=np.float32)
            steps[0, 0] = _MOVE
            steps[:, 1:] = ring
            path += [steps.ravel(), np.array([_CLOSE], dtype=np.float32)]
    roi = _with_bounds(shape, ROI_TYPE.RECT)  # so says ImageJ's format
    roi.multi_coordinates = np.concatenate(path)
    roi.shape_roi_size = len(roi.multi_coordinates)
    return roi


def _with_bounds(shape: Shape, kind: ROI_TYPE) -> ImagejRoi:
    left, top, right, bottom = shape.bounds
    return ImagejRoi(roitype=kind, left=left, top=top, right=right, bottom=bottom)
