"""Masks for image files, without Label Studio: files of other programs, and overlay pictures."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ml_backend.domain import (
    Component,
    FetchedFile,
    Flows,
    FlowSegmenter,
    Priority,
    Segmentation,
    SegmentationOptions,
)
from ml_backend.errors import BadRequest, ImageDecodeError, ImageError
from ml_backend.formats.label_png import write_picture_png
from ml_backend.formats.mask_files import FILE_KINDS, MaskFormat, write_masks
from ml_backend.service.flow_files import FLOW_ENDINGS, write_flow_files
from ml_backend.service.overlay import draw_outlines
from ml_backend.service.task_prediction import Decoder

_OVERLAY = "_overlay.png"


@dataclass(frozen=True, kw_only=True)
class FilePrediction:
    """What was found in one file and where it was written."""

    source: Path
    masks: Path
    overlay: Path
    flows: tuple[Path, ...]  # empty = not asked for
    segmentation: Segmentation

    @property
    def count(self) -> int:
        """Return the number of instances."""
        return len(self.segmentation.scores)


@dataclass(frozen=True, kw_only=True)
class FilePredictor:
    """Segments files one after the other."""

    decode: Decoder
    segmenter: FlowSegmenter
    component: Component

    def predict(
        self,
        source: Path,
        *,
        options: SegmentationOptions,
        folder: Path | None,
        mask_format: MaskFormat,
        score_threshold: float = 0.0,
        with_flows: bool = False,
    ) -> FilePrediction:
        """Write `<name>_masks.tif` (or as the format has it) and `<name>_overlay.png`.

        Args:
            source: The image file.
            options: How it is segmented.
            folder: For the results; None = beside the file.
            mask_format: Of the masks.
            score_threshold: 0..1; instances that score less are left out.
            with_flows: Whether `<name>_flows_...` are written, too.

        Raises:
            ImageError: the file cannot be used, or the results cannot be written.
            ModelError, EngineError
        """
        image = self.decode(local_file(source), plane=options.plane, channels=options.channels)
        flows: Flows | None = None
        if with_flows:
            found, flows = self.segmenter.segment_with_flows(
                image, options, component=self.component, priority=Priority.INTERACTIVE
            )
        else:
            found = self.segmenter.segment(
                image, options, component=self.component, priority=Priority.INTERACTIVE
            )
        found = found.scoring_at_least(score_threshold)
        masks, overlay, *flow_paths = _targets(source, folder, mask_format, with_flows=with_flows)
        image_name = source.name.encode("utf-8", "replace").decode()
        _write_atomically(
            masks, lambda file: write_masks(file, mask_format, found, image_name=image_name)
        )
        picture = draw_outlines(image.pixels, found.labels)
        _write_atomically(overlay, lambda file: write_picture_png(file, picture))
        if flows is not None:
            # anonymous files on the disk where they will lie
            files = write_flow_files(flows, masks.parent)
            for path, (_, file) in zip(flow_paths, files, strict=True):
                file.seek(0)
                _write_atomically(path, partial(shutil.copyfileobj, file))
        return FilePrediction(
            source=source,
            masks=masks,
            overlay=overlay,
            flows=tuple(flow_paths),
            segmentation=found,
        )


def refuse_equal_targets(
    files: Sequence[Path], *, folder: Path | None, mask_format: MaskFormat
) -> None:
    """Check that no file's results would replace another's.

    Raises:
        BadRequest: two would, such as those of `x.png` and `x.tif` in one folder.
    """
    sources: dict[Path, Path] = {}
    for source in files:
        for target in _targets(source.absolute(), folder, mask_format, with_flows=False):
            other = sources.setdefault(target, source)
            if other is not source:
                raise BadRequest(
                    f"{other} and {source} would both be written to {target}; rename one, or "
                    "segment them one after the other with another --output each."
                )


def _targets(
    source: Path, folder: Path | None, mask_format: MaskFormat, *, with_flows: bool
) -> list[Path]:
    """Return where the masks, the overlay and the flows of a file go."""
    endings = [FILE_KINDS[mask_format].ending, _OVERLAY, *(FLOW_ENDINGS if with_flows else ())]
    target = folder or source.parent
    return [target / f"{source.stem}{ending}" for ending in endings]


def local_file(path: Path) -> FetchedFile:
    """Return a file of this machine as one that was fetched.

    Raises:
        ImageDecodeError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageDecodeError(f"{path} cannot be read: {error.strerror}.") from None
    return FetchedFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write aside, then rename: an interrupted run leaves no half file."""
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("w+b") as file:
                write(file)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be written ({error.strerror or error}); free some space, or name "
            "another folder with --output."
        ) from error
