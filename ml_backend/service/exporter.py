"""Models as files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_backend.domain import CLASSIFIER, Component
from ml_backend.engines.embedder_catalogue import DESCRIPTORS, TIMM
from ml_backend.errors import EngineError, ModelError
from ml_backend.model_files.licences import UNKNOWN
from ml_backend.model_files.version_folders import slug
from ml_backend.service.bioimage_package import PackageBuilder, Tell
from ml_backend.service.cellpose_export import (
    refuse_other_architectures,
    write_cellpose_checkpoint,
)
from ml_backend.service.export_request import ExportFormat, ExportRequest
from ml_backend.service.licences import licence_of_copy


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file for other programs."""

    path: Path
    name: str  # that it should have elsewhere
    media_type: str
    notes: tuple[str, ...]  # a sentence each, for the person who asked


class ModelExporter:
    """Writes models as files for other programs."""

    def __init__(self, resolve: Callable[[str], Component], builder: PackageBuilder) -> None:
        """Keep the collaborators.

        Args:
            resolve: Turns a name into a verified component.
            builder: Makes packages.
        """
        self._resolve = resolve
        self._builder = builder

    def export(self, request: ExportRequest, folder: Path, tell: Tell) -> Exported:
        """Return the file that a request asks for.

        Args:
            request: Checked.
            folder: Empty; everything is written there, and the caller removes it.
            tell: Is told what is being done, a few words each time.

        Raises:
            BadRequest, ImageError: the request cannot be met as it is.
            ModelError: there is no such model, or it cannot be exported so.
            EngineError: a package does not pass its test, or the disk cannot be written.
        """
        component = self._resolve(request.model)
        _refuse_what_outlines_nothing(component)
        name = slug(request.title or component.name, longest=80)
        try:
            if request.format is ExportFormat.CELLPOSE:
                return self._checkpoint(component, request, folder, name, tell)
            built = self._builder.build(component, request, folder, tell)
        except OSError as error:
            raise EngineError(
                f"The export cannot be written ({error.strerror or error}); free some space."
            ) from error
        return Exported(
            path=built.archive,
            name=f"{name}.zip",
            media_type="application/zip",
            notes=built.notes,
        )

    def _checkpoint(
        self, component: Component, request: ExportRequest, folder: Path, name: str, tell: Tell
    ) -> Exported:
        refuse_other_architectures(component)
        notes = []
        if request.licence is not None or component.licence != UNKNOWN:
            licence = licence_of_copy(component.licence, request.licence, name=component.name)
            notes.append(f"The weights are under {licence}; the file itself cannot say so.")
        tell("writing the checkpoint")
        path = folder / "checkpoint"
        write_cellpose_checkpoint(component, path)
        if component.diameter is not None:
            notes.append(
                f"Have Cellpose resize images to objects of {component.diameter:.0f} pixels: "
                f"--diameter {component.diameter:.0f}."
            )
        return Exported(
            path=path, name=name, media_type="application/octet-stream", notes=tuple(notes)
        )


def _refuse_what_outlines_nothing(component: Component) -> None:
    if component.architecture in (CLASSIFIER, DESCRIPTORS, TIMM):
        raise ModelError(
            f"{component.name!r} answers for Choices and outlines nothing, so it cannot be "
            "exported; name a network that makes masks."
        )
