"""Why a version must stay, where neither serving nor a name says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ml_backend.bootstrap.models import open_version_desk
from ml_backend.domain import Component, ProjectKey
from ml_backend.engines.lora import BASE_PATH, adapter_key
from ml_backend.learning import TrainingParameters, Trigger, Version, VersionState
from ml_backend.service.model_uses import ModelUses
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)


class Office:
    """Versions on real records, with files of adapters."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.folder = folder
        self.sessions = Sessions(database)
        self.desk = open_version_desk(Settings(), database)

    @property
    def uses(self) -> ModelUses:
        """What the desk asks."""
        return self.desk.uses

    def add(self, name: str, parent: str, *, adapters_of: str | None = None) -> Version:
        """Keep a version, perhaps one of adapters."""
        path = self.folder / f"{name}.safetensors"
        key = adapter_key("sam-vitl", "encoder.blocks.0.attn.qkv", "down")
        metadata = {} if adapters_of is None else {BASE_PATH: adapters_of}
        save_file({key: torch.zeros(1)}, path, metadata=metadata)
        version = Version(
            project=PROJECT,
            name=name,
            state=VersionState.CANDIDATE,
            controls=("cells",),
            component=Component(
                name=name, architecture="sam-vitl", sha256=name, path=str(path), licence="unknown"
            ),
            session_id=None,
            parent=parent,
            created_at=1.0,
            metrics={},
        )
        self.desk.versions.add(version)
        return version


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Office(database, tmp_path)
    database.close()


def test_what_adapters_stand_on_stays_until_they_are_gone(office: Office) -> None:
    base = office.add("v1", "cpsam")
    adapters = office.add("v2", "v1", adapters_of=base.component.path)

    assert "'v2' holds adapters (LoRA)" in str(office.uses.of(base))
    assert office.uses.of(base, files_stay=True) is None
    assert office.uses.of(adapters) is None

    office.desk.delete(PROJECT, "v2")
    assert office.uses.of(base) is None


def test_what_a_whole_network_was_made_from_may_go(office: Office) -> None:
    base = office.add("v1", "cpsam")
    office.add("v2", "v1", adapters_of="/models/another")
    lost = office.add("v3", "v1")
    Path(lost.component.path).unlink()

    assert office.uses.of(base) is None


def test_a_session_may_have_started_from_what_was_served_then(office: Office) -> None:
    version = office.add("v1", "cpsam")
    office.sessions.request(
        PROJECT,
        controls=["cells"],
        trigger=Trigger.PERSON,
        parameters=TrainingParameters(from_active=True),
    )

    assert office.uses.of(version) is None  # a candidate was never served
    assert "starts from it" in str(office.uses.of(replace(version, state=VersionState.PUBLISHED)))


def test_a_session_from_a_name_that_is_nobody_s_holds_nothing(office: Office) -> None:
    version = office.add("v1", "cpsam")
    for base in ("v9", "/data/v1", "0123456789abcdef"):
        office.sessions.request(
            replace(PROJECT, project_id=len(base)),
            controls=["cells"],
            trigger=Trigger.PERSON,
            parameters=TrainingParameters(),
            base=base,
        )

    assert office.uses.of(version) is None
