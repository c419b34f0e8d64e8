"""What is asked for when the annotations or predictions of a project are to become files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from ml_backend.errors import BadRequest

PROJECT_PATH: Final = "/export-project"
"""Of the engine's route."""


class Subject(StrEnum):
    """Whose outlines are written."""

    ANNOTATIONS = "annotations"  # what people drew
    PREDICTIONS = "predictions"  # what a version found


class DataFormat(StrEnum):
    """How they are written."""

    LABELS = "labels"  # a label image in TIFF for each, and tables of labels and choices
    COCO = "coco"  # one JSON for all


@dataclass(frozen=True, kw_only=True)
class ProjectExportRequest:
    """What is asked for."""

    what: Subject = Subject.ANNOTATIONS
    format: DataFormat = DataFormat.LABELS
    images: bool = False  # the images' files as well: then a folder to train on
    every: bool = False  # each person's annotation of a task, not only the one that counts
    version: str | None = None  # of the predictions; None = the one that is served

    def canonical(self) -> dict[str, Any]:
        """Return a JSON-able mapping that `read_project_export` makes the same of."""
        return asdict(self)


def read_project_export(body: bytes) -> ProjectExportRequest:
    """Return what a JSON body asks for.

    Raises:
        BadRequest
    """
    try:
        return msgspec.json.decode(body, type=ProjectExportRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The export cannot be understood ({error}).") from None
