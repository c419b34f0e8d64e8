"""Writes what was found as the caller wants it: JSON, one file, or an archive of files.

Images are taken one after the other while they are written, so that the masks and flows of one
image are in memory at a time, however many there are.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import orjson

from ml_backend.domain import Component, Flows, Segmentation
from ml_backend.formats.coco import write_coco
from ml_backend.formats.flow_picture import flow_picture
from ml_backend.formats.label_type import compact
from ml_backend.formats.mask_files import (
    CELL,
    FILE_KINDS,
    JSON_TYPE,
    ZIP_TYPE,
    MaskFormat,
    coco_image,
    write_masks,
)
from ml_backend.formats.numpy_file import write_npy_base64
from ml_backend.service.flow_files import final_positions_array, write_flow_files

_ROWS_AT_ONCE: Final = 256  # of nested lists
ALL_COCO: Final = "coco.json"
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)  # of entries: the same answer has the same bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What was found in one image."""

    name: str  # of the image, with its ending
    stem: str  # what files about it begin with; no other image of the request has the same
    segmentation: Segmentation  # with the notes of decoding
    flows: Flows | None  # None = not asked for


@dataclass(frozen=True, kw_only=True)
class AnswerShape:
    """What an answer consists of."""

    answer: MaskFormat | None  # None = JSON
    count: int  # images
    with_flows: bool
    nested_lists: bool

    @property
    def is_archive(self) -> bool:
        """Return whether several files are answered."""
        if self.answer is None:
            return False
        return self.with_flows or (self.count > 1 and self.answer is not MaskFormat.COCO)

    @property
    def media_type(self) -> str:
        """Return its media type."""
        if self.answer is None:
            return JSON_TYPE
        return ZIP_TYPE if self.is_archive else FILE_KINDS[self.answer].media_type

    def file_name(self, stem: str) -> str | None:
        """Return what a file with it is called, None for JSON; `stem` is the first image's."""
        if self.answer is None:
            return None
        if self.is_archive:
            return f"{stem}.zip" if self.count == 1 else "masks.zip"
        return ALL_COCO if self.count > 1 else stem + FILE_KINDS[self.answer].ending


def write_answer(
    file: BinaryIO, found: Iterator[Found], shape: AnswerShape, *, model: Component, work: Path
) -> None:
    """Write an answer.

    Args:
        file: Where to; it can be sought.
        found: What was found, image by image; taken as it is written.
        shape: What to write.
        model: The network that found it.
        work: A folder for files that are needed meanwhile.

    Raises:
        ImageError: the format cannot hold the instances.
    """
    if shape.answer is None:
        _write_json(file, found, model, nested=shape.nested_lists, work=work)
    elif shape.is_archive:
        _write_archive(file, found, shape.answer, work)
    elif shape.answer is MaskFormat.COCO:
        write_coco(file, (coco_image(one.segmentation, one.name) for one in found), [CELL])
    else:
        for one in found:
            write_masks(file, shape.answer, one.segmentation, image_name=one.name)


def _write_archive(file: BinaryIO, found: Iterator[Found], kind: MaskFormat, work: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if kind is MaskFormat.COCO:
            with tempfile.TemporaryFile(dir=work) as together:
                images = (coco_image(one.segmentation, one.name)
                          for one in _with_flows_in(archive, found, work))  # fmt: skip
                write_coco(together, images, [CELL])
                _add(archive, ALL_COCO, together, is_packed=False)
            return
        for one in _with_flows_in(archive, found, work):
            with tempfile.TemporaryFile(dir=work) as masks:
                write_masks(masks, kind, one.segmentation, image_name=one.name)
                name = one.stem + FILE_KINDS[kind].ending
                _add(archive, name, masks, is_packed=FILE_KINDS[kind].is_packed)


def _with_flows_in(archive: zipfile.ZipFile, found: Iterator[Found], work: Path) -> Iterator[Found]:
    for one in found:
        if one.flows is not None:
            for ending, file in write_flow_files(one.flows, work):
                _add(archive, one.stem + ending, file, is_packed=ending.endswith(".png"))
        yield one


def _add(archive: zipfile.ZipFile, name: str, content: BinaryIO, *, is_packed: bool) -> None:
    entry = zipfile.ZipInfo(name, _MOMENT)
    entry.compress_type = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
    entry.file_size = content.seek(0, 2)  # whether it needs the format for 4 GB and more
    content.seek(0)
    with archive.open(entry, "w") as target:
        while piece := content.read(1 << 20):
            target.write(piece)


def _write_json(
    file: BinaryIO, found: Iterator[Found], model: Component, *, nested: bool, work: Path
) -> None:
    write = _write_nested if nested else _write_text
    file.write(b'{"items":[')
    separator = b""
    for one in found:
        segmentation = one.segmentation
        about = {
            "name": one.name,
            "shape": list(segmentation.labels.shape),
            "count": len(segmentation.scores),
            "scores": [round(score, 4) for score in segmentation.scores.tolist()],
            "diameter": round(segmentation.diameter, 2),
            "notes": list(segmentation.notes),
        }
        file.write(separator + orjson.dumps(about)[:-1] + b',"masks":')
        write(file, compact(segmentation.labels))
        file.write(b',"flows":')
        if one.flows is None:
            file.write(b"null")
        else:
            file.write(b'{"hsv":')
            write(file, flow_picture(one.flows.xy))
            file.write(b',"xy":')
            write(file, one.flows.xy)
            file.write(b',"cellprob":')
            write(file, one.flows.cell_probability)
            file.write(b',"final_positions":')
            with tempfile.TemporaryFile(dir=work) as kept:
                write(file, final_positions_array(one.flows, kept))
            file.write(b"}")
        file.write(b"}")
        separator = b",\n"
    file.write(b'],"model":' + orjson.dumps(model_json(model)) + b"}\n")


def model_json(model: Component) -> dict[str, Any]:
    """Return a network without the path of its file, which is nobody's business."""
    return {
        "name": model.name,
        "architecture": model.architecture,
        "sha256": model.sha256,
        "licence": model.licence,
        "diameter": model.diameter,
    }


def _write_text(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    file.write(b'"')
    write_npy_base64(file, array)
    file.write(b'"')


def _write_nested(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Write an array as nested lists, some rows at a time."""
    if array.ndim > 2 and array.shape[0] <= 3:  # (2, Y, X): rows are not its first axis
        file.write(b"[")
        for index, plane in enumerate(array):
            file.write(b"," if index else b"")
            _write_nested(file, plane)
        file.write(b"]")
        return
    file.write(b"[")
    for first in range(0, len(array), _ROWS_AT_ONCE):
        rows = np.ascontiguousarray(array[first : first + _ROWS_AT_ONCE])
        text = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
        file.write((b"," if first else b"") + text[1:-1])
    file.write(b"]")
