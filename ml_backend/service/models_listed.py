"""A model as people see it, whatever it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ml_backend.datasets import is_dataset
from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import UPLOADS, Version, VersionState
from ml_backend.service.model_lineage import Lineage


class ModelKind(StrEnum):
    """What a model is to people."""

    BUILT_IN = "built_in"  # in this package, or published by Cellpose
    PUBLISHED = "published"  # trained, and served now or at some time
    CANDIDATE = "candidate"  # trained, and kept
    REFUSED = "refused"  # cannot be loaded
    ARCHIVED = "archived"
    UPLOADED = "uploaded"  # by a person, and neither refused nor archived


@dataclass(frozen=True, kw_only=True)
class ServedFor:
    """A control that a model feeds now."""

    project: ProjectKey
    control: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as people see it."""

    name: str
    kind: ModelKind
    licence: str  # never laxer than that of any network it was made from
    architecture: str
    sha256: str | None  # of its weights; None: no engine has looked at them yet
    diameter: float | None
    project: ProjectKey | None  # of Label Studio, that it was trained on
    dataset: str | None  # that it was trained on
    session: str | None
    parent: str | None
    lineage: tuple[str, ...]  # what it was made from, the nearest first
    metrics: Mapping[str, Any] = field(repr=False)
    serves: tuple[ServedFor, ...]
    controls: tuple[str, ...]  # that it was trained for
    state: str
    created_at: float | None
    message: str | None
    path: Path | None
    owner: ProjectKey | None  # what names it without doubt, with its name; None: its name does
    namesake: bool  # whether another has the same name

    @property
    def available(self) -> bool:
        """Return whether its weights are on this machine."""
        return self.path is not None and self.path.is_file()

    @staticmethod
    def known(component: Component, serves: Sequence[ServedFor]) -> Model:
        """Return a built-in network, or one of Cellpose's."""
        return Model(
            name=component.name,
            kind=ModelKind.BUILT_IN,
            licence=component.licence,
            architecture=component.architecture,
            sha256=component.sha256 or None,
            diameter=component.diameter,
            project=None,
            dataset=None,
            session=None,
            parent=None,
            lineage=(),
            metrics={},
            serves=tuple(serves),
            controls=(),
            state=ModelKind.BUILT_IN,
            created_at=None,
            message=None,
            path=Path(component.path),
            owner=None,
            namesake=False,
        )

    @staticmethod
    def of_version(
        version: Version,
        *,
        lineage: Lineage,
        dataset: str | None,
        serves: Sequence[ServedFor],
        namesake: bool,
    ) -> Model:
        """Return a trained or uploaded network."""
        is_of_label_studio = version.project != UPLOADS and not is_dataset(version.project)
        return Model(
            name=version.name,
            kind=kind_of(version),
            licence=lineage.licence,
            architecture=version.component.architecture,
            sha256=version.component.sha256,
            diameter=version.component.diameter,
            project=version.project if is_of_label_studio else None,
            dataset=dataset,
            session=version.session_id,
            parent=version.parent or None,
            lineage=lineage.names,
            metrics=version.metrics,
            serves=tuple(dict.fromkeys(serves)),
            controls=version.controls,
            state=version.state,
            created_at=version.created_at,
            message=version.message,
            path=Path(version.component.path),
            owner=version.project,
            namesake=namesake,
        )


def kind_of(version: Version) -> ModelKind:
    """Return what a version is to people."""
    kept = version.state in (VersionState.CANDIDATE, VersionState.PUBLISHED)
    if version.project == UPLOADS and kept:
        return ModelKind.UPLOADED
    return ModelKind(version.state.value)
