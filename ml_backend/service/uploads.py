"""Checkpoints that people upload become models like the trained ones: checked, tried, immutable.

It runs where networks run: in an engine, or in the command line. A model is in the records only
once its network has answered on the device; until then its name is free.
"""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from ml_backend.domain import Component
from ml_backend.engines.foreign_checkpoint import convert_checkpoint
from ml_backend.errors import CheckpointInvalid, Conflict, ModelNotFound
from ml_backend.learning import UPLOADS, Version, VersionState
from ml_backend.model_files.folders import ASIDE, remove_folder
from ml_backend.model_files.hashes import file_sha256
from ml_backend.model_files.known import (
    CELLPOSE_LICENCE,
    CELLPOSE_MODELS,
    built_in_networks,
)
from ml_backend.model_files.licences import UNKNOWN, never_laxer
from ml_backend.model_files.manifests import WEIGHTS_FILE
from ml_backend.model_files.version_folders import (
    Publication,
    Publisher,
    component_of_file,
    project_slug,
)
from ml_backend.service.model_names import ModelNames
from ml_backend.service.package_facts import shareable
from ml_backend.service.package_import import unpack_package
from ml_backend.service.upload_request import UploadRequest
from ml_backend.store.versions import Versions

LARGEST_FACTS: Final = 1_000_000  # characters of JSON, of what a package says of its network
_KEPT_FACTS: Final = (  # of the manifest in a package
    *("lineage", "metrics", "accuracy", "data", "training_data", "parameters", "segmentation"),
    *("libraries", "inference"),
)
LEFT_AFTER_S: Final = 3600.0  # then a folder without a row was left by a writer that was killed

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Uploads:
    """Takes checkpoints in."""

    models: Path  # the folder that holds a folder for each project's versions
    versions: Versions
    names: ModelNames
    prove: Callable[[Component], object]  # load, verify, try; raises ModelError, EngineError
    cellpose_dir: Path  # where Cellpose's weights are looked for
    max_bytes: int  # of what a package may unpack to
    clock: Callable[[], float] = time.time

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield an empty folder on the disk of the models, which is gone afterwards."""
        parent = self.models / project_slug(UPLOADS)
        parent.mkdir(parents=True, exist_ok=True)
        # named so that what a killed process leaves is swept with the rest
        with tempfile.TemporaryDirectory(prefix=ASIDE, dir=parent) as folder:
            yield Path(folder)

    def take(self, file: Path, request: UploadRequest) -> Version:
        """Return the new model.

        Args:
            file: A checkpoint (safetensors, or written by `torch.save`) or a BioImage.IO package;
                it stays as it is.
            request: What was said of it.

        Raises:
            CheckpointInvalid: it is damaged, holds more than weights, or fits no network.
            Conflict: its name is taken.
            ModelError, EngineError: its network cannot be run here.
            StoreError
            OSError: the disk is full or cannot be written.
        """
        self.names.refuse_taken(request.name)
        with self.workspace() as folder:
            sent = self._unpacked(file, folder)
            weights = folder / WEIGHTS_FILE
            component = component_of_file(
                request.name,
                convert_checkpoint(sent.weights, weights, name=request.name),
                weights,
                self._licence(sent, weights, request),
                diameter=request.diameter or sent.diameter,
            )
            self.prove(component)
            published = self._publish(component, request, sent.facts)
        version = Version(
            project=UPLOADS,
            name=request.name,
            state=VersionState.CANDIDATE,
            controls=(),
            component=published,
            session_id=None,
            parent=sent.parent or "",
            created_at=self.clock(),
            metrics={},
            message=request.description or f"Uploaded by {request.by}.",
        )
        self.versions.add(version)
        log.info("model uploaded", name=version.name, sha256=published.sha256, by=request.by)
        return version

    def _unpacked(self, file: Path, folder: Path) -> _Sent:
        """Return what was sent, out of its package if it came in one.

        Raises:
            CheckpointInvalid, OSError
        """
        if not is_package(file):
            return _Sent(weights=file)
        inside = folder / "package"
        inside.mkdir()
        self._check_size(file)
        found = unpack_package(file, inside)
        facts = {
            name: shareable(found.manifest[name], addresses=True)
            for name in _KEPT_FACTS
            if found.manifest.get(name) is not None
        }
        if len(json.dumps(facts)) > LARGEST_FACTS:
            facts = {}
        return _Sent(
            weights=found.weights,
            licences=(found.licence, *_licences_in(facts.get("lineage"))),
            diameter=found.diameter,
            parent=found.parent,
            facts=facts,
        )

    def _check_size(self, file: Path) -> None:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > self.max_bytes:
            raise CheckpointInvalid(
                f"The package unpacks to {size / 1e6:.0f} MB, which is over MAX_MODEL_MB "
                f"({self.max_bytes / 1e6:g}); raise that setting if it is right."
            )

    def _publish(
        self, component: Component, request: UploadRequest, facts: Mapping[str, Any]
    ) -> Component:
        publisher = Publisher(self.models)
        publication = Publication(
            name=request.name,
            session_id=None,
            weights=Path(component.path),
            parent=None,
            architecture=component.architecture,
            licence=component.licence,
            diameter=component.diameter,
            facts={
                **facts,
                "uploaded": {
                    "by": request.by,
                    "file": request.file_name,
                    "at": self.clock(),
                    "description": request.description,
                },
            },
        )
        folder = publisher.folder(UPLOADS, request.name)
        if folder.is_dir() and self.clock() - folder.stat().st_mtime > LEFT_AFTER_S:
            remove_folder(folder)
        try:
            return publisher.publish(UPLOADS, publication)
        except FileExistsError as error:
            raise Conflict(
                f"A model {request.name!r} is being uploaded by somebody else just now; choose "
                "another name, or try again in an hour."
            ) from error

    def _licence(self, sent: _Sent, weights: Path, request: UploadRequest) -> str:
        """Return the licence: never laxer than what is known of the weights and their origin."""
        known = [*sent.licences, *self._licences_of_same(sent.weights, weights)]
        said = [licence for licence in known if licence != UNKNOWN]
        licence = request.licence or next(iter(said), UNKNOWN)
        for other in said:
            licence = never_laxer(licence, other)
        return licence

    def _licences_of_same(self, file: Path, weights: Path) -> Iterator[str]:
        sha256 = file_sha256(weights)
        same = {file_sha256(file), sha256}
        yield from (one.licence for one in built_in_networks() if one.sha256 in same)
        for version in self.versions.of_all_projects():
            if version.component.sha256 in same:
                yield version.component.licence
        for name in CELLPOSE_MODELS:
            published = self.cellpose_dir / name
            try:
                is_like = published.stat().st_size == file.stat().st_size
                if is_like and file_sha256(published) in same:
                    yield CELLPOSE_LICENCE
            except (OSError, ModelNotFound):
                continue


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """What somebody sent, as it says of itself."""

    weights: Path
    licences: tuple[str, ...] = ()  # its own, and of what it was made from
    diameter: float | None = None
    parent: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the manifest, JSON-able


def _licences_in(lineage: Any) -> Iterator[str]:
    for ancestor in lineage if isinstance(lineage, list) else ():
        if isinstance(ancestor, Mapping) and isinstance(ancestor.get("licence"), str):
            yield ancestor["licence"]


def is_package(file: Path) -> bool:
    """Return whether a file is a BioImage.IO package and no checkpoint."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
    return bool(names & {"bioimageio.yaml", "rdf.yaml", "model.yaml"})
