"""Which networks callers may name over HTTP: names, and paths in allowed folders only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ml_backend.domain import CLASSIFIER, Component
from ml_backend.errors import BadRequest, ModelError, ModelNotFound
from ml_backend.learning import UPLOADS, Version, VersionState
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.model_choice import ModelChoice
from ml_backend.service.model_names import ModelNames
from ml_backend.store.database import Database
from ml_backend.store.versions import Versions


def network(name: str, architecture: str = "residual-unet") -> Component:
    """Return a network."""
    return Component(
        name=name, architecture=architecture, sha256=name.encode().hex(), path="", licence="CC0-1.0"
    )


@dataclass
class Resolver:
    """Resolves every name; notes which."""

    asked: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> Component:
        """Return a network of that name."""
        self.asked.append(name)
        return network(name, CLASSIFIER if "classes" in name else "residual-unet")


@pytest.fixture
def resolver() -> Resolver:
    """Return a resolver."""
    return Resolver()


@pytest.fixture
def choice(tmp_path: Path, resolver: Resolver) -> Iterator[ModelChoice]:
    """Return the choice among a trained model, built-in ones and the files in one folder."""
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    Versions(database).add(
        Version(
            project=UPLOADS,
            name="mine",
            state=VersionState.PUBLISHED,
            controls=(),
            component=network("mine"),
            session_id=None,
            parent="nuclei-1",
            created_at=1.0,
            metrics={},
        )
    )
    (tmp_path / "models").mkdir()
    for name in ("models/a.pt", "models/classes.pt", "outside.pt"):
        (tmp_path / name).write_bytes(b"weights")
    yield ModelChoice(
        resolve=resolver,
        names=ModelNames(database, others=["nuclei-1"]),
        paths=AllowedPaths([tmp_path / "models"]),
        default="what MODEL names",
    )
    database.close()


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("auto", "what MODEL names"),
        ("nuclei-1", "nuclei-1"),
        ("cpsam_v2", "cpsam_v2"),
        ("mine", "mine"),
        ("uploads/mine", "uploads/mine"),
    ],
)
def test_names_are_resolved(
    choice: ModelChoice, resolver: Resolver, name: str, resolved: str
) -> None:
    choice.choose(name)

    assert resolver.asked == [resolved]


def test_a_checkpoint_in_an_allowed_folder_may_be_named(
    choice: ModelChoice, resolver: Resolver, tmp_path: Path
) -> None:
    path = tmp_path / "models" / "a.pt"

    choice.choose(str(path))

    assert resolver.asked == [str(path.resolve())]


def test_no_other_file_may_be_named(
    choice: ModelChoice, resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    for name in (str(tmp_path / "outside.pt"), str(tmp_path / "models" / ".." / "outside.pt")):
        with pytest.raises(BadRequest, match="lies outside"):
            choice.choose(name)
    for name in ("outside.pt", "models/a.pt", "~/a.pt", "nonsense", "embedder:auto"):
        with pytest.raises(ModelNotFound, match="There is no model"):
            choice.choose(name)
    assert resolver.asked == []


def test_what_finds_no_masks_is_refused(choice: ModelChoice, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="finds no masks"):
        choice.choose(str(tmp_path / "models" / "classes.pt"))
