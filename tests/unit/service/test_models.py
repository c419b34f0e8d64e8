"""Which networks can be served, written where the web process reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ml_backend.domain import Component
from ml_backend.errors import CheckpointInvalid, ModelError, ModelNotFound
from ml_backend.service.models import ModelRegistry
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.releases import DEFAULT_PROJECT, Releases
from tests.unit.service.conftest import COMPONENT


@dataclass
class Catalogue:
    """Resolves what it holds."""

    models: dict[str, Component | ModelError] = field(
        default_factory=lambda: {"auto": COMPONENT}  # type: ignore[dict-item]  # one of two kinds
    )

    def __call__(self, name: str) -> Component:
        found = self.models.get(name, ModelNotFound(f"There is no model {name!r}."))
        if isinstance(found, ModelError):
            raise found
        return found


@dataclass
class Records:
    """What the web process reads."""

    components: Components
    releases: Releases


@pytest.fixture
def records(tmp_path: Path) -> Records:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    return Records(components=Components(database), releases=Releases(database))


def registry(records: Records, catalogue: Catalogue, requested: str = "auto") -> ModelRegistry:
    return ModelRegistry(requested, catalogue, records.components, records.releases, device="cpu")


def test_what_model_resolves_to_is_recorded_with_the_first_release(records: Records) -> None:
    with registry(records, Catalogue()):
        component = records.components.resolved("auto")
        release = records.releases.active(DEFAULT_PROJECT)

    assert component == COMPONENT
    assert release is not None
    assert release.version.startswith(f"{COMPONENT.name}-")


def test_a_model_that_cannot_be_served_is_recorded_with_its_reason(records: Records) -> None:
    catalogue = Catalogue({"auto": CheckpointInvalid("The checkpoint lacks 3 keys.")})

    with pytest.raises(CheckpointInvalid), registry(records, catalogue):
        pass

    resolution = records.components.resolution("auto")
    assert resolution is not None
    assert resolution.problem == "The checkpoint lacks 3 keys."
    assert records.releases.active(DEFAULT_PROJECT) is None


def test_models_that_label_configs_name_are_looked_for(records: Records) -> None:
    catalogue = Catalogue()
    catalogue.models["other"] = COMPONENT
    looking = registry(records, catalogue)
    records.components.want("other")
    records.components.want("missing")

    looking.resolve_wanted()

    other = records.components.resolution("other")
    missing = records.components.resolution("missing")
    assert other is not None
    assert other.component == COMPONENT
    assert missing is not None
    assert missing.problem == "There is no model 'missing'."
