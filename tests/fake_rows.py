"""A Label Studio that keeps a backend's title, a project's model version and predictions.

It moves them as the real one does (measured; see the end-to-end tests), and notes in which order
it was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ml_backend.domain import Prediction, ProjectKey, Task
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend, ProjectInfo


def backend_row(number: int, title: str, *, url: str = "http://ours:9090") -> ConnectedBackend:
    """Return a backend whose /setup answered its title last."""
    return ConnectedBackend(
        id=number,
        title=title,
        url=url,
        model_version=title,
        basic_auth_user=None,
        is_interactive=False,
        error=None,
    )


@dataclass
class FakeRows:
    """One project with one backend and its tasks."""

    key: ProjectKey
    version: str  # of the title and the project, at the start
    setup: Callable[[str], str]  # address of a backend -> the version it answers
    tasks: list[Task] = field(default_factory=list)
    annotated: set[int] = field(default_factory=set)
    rows: list[ConnectedBackend] = field(default_factory=list)
    predictions: list[tuple[int, str]] = field(default_factory=list)  # task, version
    asked: list[str] = field(default_factory=list)  # what was changed, in order
    failures: list[LabelStudioError] = field(default_factory=list)  # raised first, one a call
    lost_titles: int = 0  # so many changes of a title are undone by a page that loads meanwhile
    invalid: set[int] = field(default_factory=set)  # tasks whose predictions are dropped
    info: ProjectInfo = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.rows or [backend_row(1, self.version)]
        self.info = ProjectInfo(
            id=self.key.project_id,
            title="Cells",
            created_at=self.key.created_at,
            label_config="",
            model_version=self.version,
            shows_predictions=True,
            task_count=len(self.tasks),
        )

    @property
    def shown(self) -> tuple[str, str]:
        """The title of the first backend, and the project's version."""
        return self.rows[0].title, self.info.model_version

    def project(self, project_id: int) -> ProjectInfo:
        """Return the project."""
        self._fail()
        return self.info

    def update_project(self, project_id: int, **fields: object) -> ProjectInfo:
        """Take a version that is live or has predictions."""
        self._fail()
        version = str(fields["model_version"])
        static = {held for _, held in self.predictions}
        if version not in static | {row.title for row in self.rows}:
            raise LabelStudioError("Model version doesn't exist", status=400)
        self.asked.append(f"project {version}")
        self.info = replace(self.info, model_version=version)
        return self.info

    def backends(self, project_id: int) -> list[ConnectedBackend]:
        """Return the rows."""
        self._fail()
        return list(self.rows)

    def update_backend(
        self, backend_id: int, *, project_id: int, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend:
        """Take a title; the project follows when it shows the old one."""
        self._fail()
        index = next(i for i, row in enumerate(self.rows) if row.id == backend_id)
        old = self.rows[index]
        answered = self.setup(old.url)
        self.asked.append(f"title {title}")
        new = replace(old, title=title, model_version=answered)
        if self.info.model_version == old.title:
            self.info = replace(self.info, model_version=title)
        if self.lost_titles:
            self.lost_titles -= 1
            self.rows[index] = replace(old, model_version=answered)
        else:
            self.rows[index] = new
        return new

    def unannotated_tasks(self, project_id: int, *, limit: int) -> list[Task]:
        """Return the first tasks without annotation."""
        self._fail()
        return [task for task in self.tasks if task.id not in self.annotated][:limit]

    def existing_tasks(self, project_id: int, task_ids: Iterable[int]) -> set[int]:
        """Return those that are there."""
        self._fail()
        return {task.id for task in self.tasks} & set(task_ids)

    def tasks_with_prediction(
        self, project_id: int, task_ids: Iterable[int], version: str
    ) -> set[int]:
        """Return those that hold one."""
        self._fail()
        return {task for task, held in self.predictions if held == version} & set(task_ids)

    def import_predictions(self, project_id: int, items: Sequence[tuple[int, Prediction]]) -> int:
        """Add rows; never replaces, drops invalid ones without a word."""
        self._fail()
        rows = [(task, item.model_version) for task, item in items if task not in self.invalid]
        if rows:
            self.asked.append(f"predictions {rows[0][1]}")
        self.predictions += rows
        return len(rows)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
