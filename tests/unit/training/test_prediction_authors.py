"""Which networks made the prediction that a person was shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import LabelStudioError
from ml_backend.store.database import Database
from ml_backend.store.releases import Releases
from ml_backend.training.prediction_authors import PredictionAuthors

PROJECT = ProjectKey(origin="http://labels.example", project_id=3, created_at=1_800_000_000)


def component(sha256: str) -> Component:
    return Component(
        name=sha256, architecture="residual-unet", sha256=sha256, path="", licence="CC0-1.0"
    )


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Releases(database)
    database.close()


def refuse(_prediction: int) -> str | None:
    raise LabelStudioError("Label Studio does not answer; start it.")


def test_a_prediction_leads_to_the_networks_of_its_version(releases: Releases) -> None:
    release = releases.ensure(
        PROJECT,
        components={"cells": component("cafe"), "other": component("beef")},
        canonical_config={},
        label_config="",
        revision="1",
    )
    versions = {7: release.version, 8: "somebody-elses-1"}
    authors = PredictionAuthors(PROJECT, ["cells"], releases, versions.get)

    assert authors(7) == {"cafe"}
    assert authors(8) == frozenset()
    assert authors(9) == frozenset()


def test_nobody_knows_without_credentials_or_while_label_studio_is_away(
    releases: Releases,
) -> None:
    assert PredictionAuthors(PROJECT, ["cells"], releases, None)(7) == frozenset()
    assert PredictionAuthors(PROJECT, ["cells"], releases, refuse)(7) == frozenset()
