"""A network becomes a version: an immutable folder with its weights and its manifest.

`<models>/<project>/<version>/{weights.safetensors, manifest.json}`. The folder is whole or not
there, and publishing the same session's version again finds it instead of making a second.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.architectures import architecture_of, require_package
from ml_backend.model_files.folders import sweep, written_aside
from ml_backend.model_files.hashes import file_sha256
from ml_backend.model_files.headers import safetensors_header
from ml_backend.model_files.manifests import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    diameter_of,
    read_manifest,
)

_UNSAFE = re.compile(r"[^a-z0-9]+")
_LONG_AGO_S = 3600.0
_LONGEST = 40  # characters of a name's first part: paths are limited, and people read them


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is to be published."""

    name: str  # of the version, unique in the project
    session_id: str | None  # that trained it; None: it was uploaded
    weights: Path  # a safetensors file; it is copied
    parent: Component | None  # what the training started from; None: nobody knows
    architecture: str
    licence: str  # of the weights: never laxer than the parent's
    diameter: float | None  # of the objects it was trained on, pixels, image frame
    facts: Mapping[str, Any] = field(repr=False)  # JSON-able: metrics, parameters, data hash ...
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # PNG by file name


class Publisher:
    """Writes version folders."""

    def __init__(self, models: Path) -> None:
        """Keep the folder that holds a folder for each project."""
        self._models = models

    def publish(self, project: ProjectKey, publication: Publication) -> Component:
        """Return the network in its version folder, written now or when it was first asked for.

        Raises:
            FileExistsError: the name belongs to another session's version.
            CheckpointInvalid: what was written cannot be read back.
            OSError: the disk is full or cannot be written; nothing is left behind.
        """
        folder = self.folder(project, publication.name)
        try:
            with written_aside(folder) as aside:
                weights = aside / WEIGHTS_FILE
                shutil.copyfile(publication.weights, weights)
                manifest = _manifest(publication, sha256=file_sha256(weights))
                text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
                (aside / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
                for file_name, picture in publication.pictures.items():
                    (aside / file_name).write_bytes(picture)
        except FileExistsError:
            ours = publication.session_id
            if ours is None or self.session_of(project, publication.name) != ours:
                raise
        return component_of_version(folder)

    def session_of(self, project: ProjectKey, name: str) -> str | None:
        """Return which session's version has that name, None if there is no such folder."""
        path = self.folder(project, name) / MANIFEST_FILE
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return ""  # somebody's, but damaged: never ours to use
        return str(manifest.get("session", "")) if isinstance(manifest, dict) else ""

    def find(self, project: ProjectKey, name: str, session_id: str) -> Component | None:
        """Return the version that a session published, None if it has not (whole).

        Raises:
            CheckpointInvalid: its folder is damaged.
        """
        if self.session_of(project, name) != session_id:
            return None
        return component_of_version(self.folder(project, name))

    def folder(self, project: ProjectKey, name: str) -> Path:
        """Return where a version lies or would lie."""
        return self._models / project_slug(project) / slug(name, longest=100)

    def sweep(self) -> None:
        """Remove what writers left that were killed long ago."""
        for project in self._models.iterdir() if self._models.is_dir() else ():
            sweep(project, older_than_s=_LONG_AGO_S)


def component_of_version(folder: Path) -> Component:
    """Return the network in a version folder: `weights.safetensors` and `manifest.json`.

    The manifest says `sha256`, and may say `name`, `licence` and `diameter`, the size of the
    objects that it was fine-tuned on (pixels, image frame).

    Raises:
        CheckpointInvalid: a file is missing or damaged, or the weights are others.
        ModelNotFound: the weights cannot be read.
        ModelError: a package that the network needs is missing.
    """
    manifest = read_manifest(folder / MANIFEST_FILE)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise CheckpointInvalid(f"{folder} holds no {WEIGHTS_FILE}.")
    architecture = architecture_of(safetensors_header(weights)[0])
    name = str(manifest.get("name", folder.name))
    require_package(architecture, name)
    return component_of_file(
        name,
        architecture,
        weights.resolve(),
        str(manifest.get("licence", "unknown")),
        expected=str(manifest["sha256"]),
        diameter=diameter_of(manifest, folder),
    )


def component_of_file(
    name: str,
    architecture: str,
    path: Path,
    licence: str,
    *,
    expected: str | None = None,
    diameter: float | None = None,
) -> Component:
    """Return the network in a file of weights, hashed.

    Raises:
        CheckpointInvalid: it has another hash than `expected`.
        ModelNotFound: it cannot be read.
    """
    sha256 = file_sha256(path)
    if expected is not None and sha256 != expected.lower():
        raise CheckpointInvalid(
            f"{path.name} has the checksum {sha256[:12]}…, its manifest says {expected[:12]}…; "
            "the file is damaged or was replaced."
        )
    return Component(
        name=name,
        architecture=architecture,
        sha256=sha256,
        path=str(path),
        licence=licence,
        diameter=diameter,
    )


def project_slug(project: ProjectKey) -> str:
    """Return a folder name for a project: readable, and never that of another project."""
    host = slug(project.origin.partition("://")[2] or project.origin)
    digest = hashlib.sha256(str(project).encode()).hexdigest()[:8]
    return f"{host}-{project.project_id}-{digest}"


def slug(text: str, *, longest: int = _LONGEST) -> str:
    """Return `text` in small letters, digits and dashes, which every file system takes."""
    return _UNSAFE.sub("-", text.lower()).strip("-")[:longest].strip("-") or "unnamed"


def _manifest(publication: Publication, *, sha256: str) -> dict[str, Any]:
    manifest: dict[str, Any] = {
        "name": publication.name,
        "sha256": sha256,
        "architecture": {"name": publication.architecture},
        "licence": publication.licence,
    }
    if publication.session_id is not None:
        manifest["session"] = publication.session_id
    if publication.parent is not None:
        manifest["parent"] = {
            "name": publication.parent.name,
            "sha256": publication.parent.sha256,
            "path": publication.parent.path,
        }
    if publication.diameter is not None:
        manifest["diameter"] = publication.diameter
    return {**manifest, **{k: v for k, v in publication.facts.items() if k not in manifest}}
