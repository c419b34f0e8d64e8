"""A process that serves toolkit classes, as far as tests need it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.errors import ImageFetchError
from ml_backend.hosting import ports, registered
from ml_backend.hosting.ports import Ports, plug_in

PROJECT = ProjectKey(origin="http://ls.example", project_id=7, created_at=5)
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="Cell" predicted_values="cell, nucleus"/><Label value="Debris"/>'
    '</RectangleLabels><Choices name="quality" toName="image"><Choice value="good"/>'
    '<Choice value="bad"/></Choices></View>'
)


@dataclass
class FakeValues:
    """Values in memory; `revision` is what another process has written."""

    kept: dict[tuple[ProjectKey, str], str] = field(default_factory=dict)
    revision: int = 0

    def get(self, project: ProjectKey, key: str) -> str | None:
        return self.kept.get((project, key))

    def set(self, project: ProjectKey, key: str, value: str) -> None:
        self.kept[project, key] = value

    def revision_of_others(self, project: ProjectKey) -> tuple[int, int]:
        return (self.revision, self.revision)


@pytest.fixture
def values() -> FakeValues:
    """The values that classes of this test keep."""
    return FakeValues()


@pytest.fixture
def hosting(values: FakeValues, tmp_path: Path) -> Iterator[Path]:
    """Plug this process in; yield the folder of its files, and forget all of it at the end."""
    modules, path = dict(sys.modules), list(sys.path)
    plugged = list(ports._plugged)
    functions = dict(registered._functions)
    files = tmp_path / "files"
    files.mkdir()

    def fetch(project: ProjectKey, address: str, task_id: int | None) -> Path:
        if "missing" in address:
            raise ImageFetchError(f"{address} is gone.")
        file = files / f"{project.project_id}-{task_id}-{address.rpartition('/')[2]}"
        file.write_text(address)
        return file

    plug_in(Ports(values=values, fetch=fetch))
    yield files
    ports._plugged[:] = plugged
    registered._functions.clear()
    registered._functions.update(functions)
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        if not name.startswith(("ml_backend.", "label_studio_sdk", "numpy", "pydantic", "PIL")):
            del sys.modules[name]
