"""What a name of a model stands for, and what is said where it is nobody's or several'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_backend.datasets import DatasetSource
from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import ModelError, ModelNotFound
from ml_backend.learning import (
    UPLOADS,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
    Version,
    VersionState,
)
from ml_backend.service.model_names import ModelNames
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions

PROJECT = ProjectKey(origin="http://ls.example/labels", project_id=3, created_at=9)
OTHER = ProjectKey(origin="http://other.example", project_id=4, created_at=10)


class Records:
    """Versions and sessions as trainers leave them."""

    def __init__(self, database: Database) -> None:
        self.versions, self.sessions = Versions(database), Sessions(database)
        self.dataset = Datasets(database).register(DatasetSource(root="/data/my nuclei"))
        self.names = ModelNames(database, others=["nuclei-1", "cpsam_v2"])

    def add(self, name: str, project: ProjectKey = PROJECT, **more: Any) -> Version:
        """Keep a version."""
        component = Component(
            name=name,
            architecture="residual-unet",
            sha256=f"{name}{project}".encode().hex()[:64],
            path=f"/models/{name}",
            licence="CC0-1.0",
        )
        fields: dict[str, Any] = {
            "project": project,
            "name": name,
            "state": VersionState.CANDIDATE,
            "controls": ("cells",),
            "component": component,
            "session_id": None,
            "parent": "nuclei-1",
            "created_at": 1.0,
            "metrics": {},
        }
        version = Version(**{**fields, **more})
        self.versions.add(version)
        return version

    def session(self, version: str | None, *, message: str | None = None) -> Session:
        """Return a session that has completed."""
        asked = self.sessions.request(
            PROJECT,
            controls=("cells",),
            trigger=Trigger.PERSON,
            parameters=TrainingParameters(),
        )
        lease = self.sessions.claim(asked.id, owner="trainer", lease_s=60)
        assert lease is not None
        self.sessions.finish(lease, SessionState.COMPLETED, message=message, version=version)
        return asked


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Records(database)
    database.close()


def test_a_version_is_found_by_its_name_whosever_it_is(records: Records) -> None:
    for project in (PROJECT, records.dataset.key, UPLOADS):
        version = records.add(f"v-{project.origin[:6].strip(':/')}", project)

        assert records.names.find(version.name) == version
        assert records.names.usable(version.name) == version


def test_a_session_s_id_and_its_beginning_stand_for_what_it_made(records: Records) -> None:
    version = records.add("v1")
    session = records.session("v1")

    assert records.names.find(session.id) == version
    assert records.names.find(session.id[:8]) == version
    assert records.names.find(session.id[:7]) is None


def test_the_id_of_a_deleted_session_still_stands_for_the_model_that_it_made(
    records: Records,
) -> None:
    session = records.session("v1")
    version = records.add("v1", session_id=session.id)

    records.sessions.delete(session.id)

    assert records.names.find(session.id[:8]) == version
    assert records.names.find("0123456789") is None


def test_a_name_comes_before_a_session_of_that_beginning(records: Records) -> None:
    records.add("v1")
    session = records.session("v1")
    named_alike = records.add(session.id[:8])

    assert records.names.find(session.id[:8]) == named_alike


def test_a_session_without_a_model_says_how_it_ended(records: Records) -> None:
    session = records.session(None, message="No annotation has changed.")

    with pytest.raises(ModelNotFound, match=r"completed .* \(No annotation has changed\)"):
        records.names.find(session.id)


def test_a_session_that_is_still_at_it_has_no_model(records: Records) -> None:
    session = records.sessions.request(
        PROJECT, controls=("cells",), trigger=Trigger.PERSON, parameters=TrainingParameters()
    )

    with pytest.raises(ModelNotFound, match="is queued and has made no model"):
        records.names.find(session.id)


def test_a_beginning_that_two_sessions_share_is_not_guessed(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(["abcdef01" + "0" * 24, "abcdef01" + "1" * 24])
    monkeypatch.setattr(
        "ml_backend.store.session_requests.uuid.uuid4",
        lambda: type("Id", (), {"hex": next(ids)}),
    )
    for _ in range(2):
        records.session(None)

    with pytest.raises(ModelNotFound, match="Several sessions begin with 'abcdef01'"):
        records.names.find("abcdef01")


def test_a_name_that_several_have_is_answered_with_names_that_work(records: Records) -> None:
    mine, theirs = records.add("v1"), records.add("v1", OTHER)
    of_dataset, uploaded = records.add("v1", records.dataset.key), records.add("v1", UPLOADS)

    with pytest.raises(ModelNotFound, match="Several models are called 'v1'") as refused:
        records.names.find("v1")

    expected = {
        "http://ls.example/labels#3.9/v1": mine,
        "http://other.example#4.10/v1": theirs,
        "my-nuclei/v1": of_dataset,
        "uploads/v1": uploaded,
    }
    for name, version in expected.items():
        assert name in refused.value.message
        assert records.names.find(name) == version
        assert records.names.full_name(version) == name


@pytest.mark.parametrize("project", ["3", "3.9", "http://ls.example/labels#3.9"])
def test_a_project_is_named_as_everywhere(records: Records, project: str) -> None:
    version = records.add("v1")
    records.add("v1", OTHER)

    assert records.names.find(f"{project}/v1") == version


@pytest.mark.parametrize("name", ["v9", "5/v1", "/data/v1", "v1/", "", "v\0", "0123456789abcdef"])
def test_what_nothing_is_called_is_nothing(records: Records, name: str) -> None:
    records.add("v1")

    assert records.names.find(name) is None


def test_an_unknown_name_is_answered_with_what_there_is(records: Records) -> None:
    records.add("v1")
    records.add("old", state=VersionState.ARCHIVED)

    sentence = records.names.unknown("v9").message

    assert sentence.startswith("There is no model or file 'v9'; use one of nuclei-1, cpsam_v2, v1,")
    assert "old" not in sentence


def test_of_very_many_only_some_are_named(records: Records) -> None:
    for number in range(30):
        records.add(f"v{number}")

    assert "and 12 more" in records.names.unknown("x").message


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (VersionState.REFUSED, "Its checksum is wrong."),
        (VersionState.ARCHIVED, "was put away"),
    ],
)
def test_what_was_refused_or_put_away_is_not_used(
    records: Records, state: VersionState, reason: str
) -> None:
    records.add("v1", state=state, message="Its checksum is wrong.")

    with pytest.raises(ModelError, match=reason):
        records.names.usable("v1")
    assert records.names.find("v1") is not None
