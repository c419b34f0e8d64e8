"""Masks for image files, without Label Studio: label images and overlay pictures on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from ml_backend.domain import (
    Component,
    FetchedFile,
    LabelImage,
    Priority,
    Segmentation,
    SegmentationOptions,
    Segmenter,
)
from ml_backend.errors import BadRequest, ImageDecodeError, ImageError
from ml_backend.service.overlay import draw_outlines
from ml_backend.service.task_prediction import Decoder

PNG_MOST = 65535  # instances that fit a 16-bit PNG


@dataclass(frozen=True, kw_only=True)
class FilePrediction:
    """What was found in one file and where it was written."""

    source: Path
    masks: Path
    overlay: Path
    segmentation: Segmentation

    @property
    def count(self) -> int:
        """Return the number of instances."""
        return len(self.segmentation.scores)


@dataclass(frozen=True, kw_only=True)
class FilePredictor:
    """Segments files one after the other."""

    decode: Decoder
    segmenter: Segmenter
    component: Component

    def predict(
        self,
        source: Path,
        *,
        options: SegmentationOptions,
        folder: Path | None,
        mask_format: str,
        score_threshold: float = 0.0,
    ) -> FilePrediction:
        """Write `<name>_masks.<format>` and `<name>_overlay.png`, beside the file or in `folder`.

        Instances that score less than `score_threshold` (0..1) are left out.

        Raises:
            ImageError: the file cannot be used, or the results cannot be written.
            ModelError, EngineError
        """
        image = self.decode(_local_file(source), plane=options.plane, channels=options.channels)
        segmentation = self.segmenter.segment(
            image, options, component=self.component, priority=Priority.INTERACTIVE
        ).scoring_at_least(score_threshold)
        masks, overlay = _targets(source, folder, mask_format)
        write_label_image(masks, segmentation.labels)
        picture = draw_outlines(image.pixels, segmentation.labels)
        _write_atomically(overlay, lambda path: _write_png(path, picture[..., ::-1]))
        return FilePrediction(
            source=source, masks=masks, overlay=overlay, segmentation=segmentation
        )


def refuse_equal_targets(files: Sequence[Path], *, folder: Path | None, mask_format: str) -> None:
    """Check that no file's results would replace another's.

    Raises:
        BadRequest: two would, such as those of `x.png` and `x.tif` in one folder.
    """
    sources: dict[Path, Path] = {}
    for source in files:
        for target in _targets(source.absolute(), folder, mask_format):
            other = sources.setdefault(target, source)
            if other is not source:
                raise BadRequest(
                    f"{other} and {source} would both be written to {target}; rename one, or "
                    "segment them one after the other with another --output each."
                )


def _targets(source: Path, folder: Path | None, mask_format: str) -> tuple[Path, Path]:
    """Return where the masks and the overlay of a file go."""
    target = folder or source.parent
    return target / f"{source.stem}_masks.{mask_format}", target / f"{source.stem}_overlay.png"


def _local_file(path: Path) -> FetchedFile:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageDecodeError(f"{path} cannot be read: {error.strerror}.") from None
    return FetchedFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def write_label_image(path: Path, labels: LabelImage) -> None:
    """Write `labels`, (Y, X) int32, as a 16-bit (TIFF: 32-bit where needed) label image.

    Raises:
        ImageError: more instances than a 16-bit PNG can number, or it cannot be written.
    """
    count = int(labels.max(initial=0))
    if path.suffix == ".png":
        if count > PNG_MOST:
            raise ImageError(f"{count} instances do not fit a 16-bit PNG; use --format tif.")
        _write_atomically(path, lambda aside: _write_png(aside, labels.astype(np.uint16)))
        return
    kind = np.uint16 if count <= PNG_MOST else np.uint32
    _write_atomically(
        path, lambda aside: tifffile.imwrite(aside, labels.astype(kind), compression="zlib")
    )


def _write_png(path: Path, picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    encoded, data = cv2.imencode(".png", picture)
    if not encoded:
        raise ImageError(f"{path.name} could not be encoded as PNG.")
    path.write_bytes(data.tobytes())


def _write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write aside, then rename: an interrupted run leaves no half file."""
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be written ({error.strerror or error}); free some space, or name "
            "another folder with --output."
        ) from error
