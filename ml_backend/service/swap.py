"""What Label Studio shows of a project, brought into line with what is served.

Label Studio scores, sorts and asks for predictions by two strings that it keeps: the title of the
backend's row and the project's model version. Both must be the version that /setup answers. The
order of a swap is static first: predictions of the new version are stored, the project is flipped
to them (Label Studio then shows stored rows and asks nobody), /setup answers the new version, and
the title follows. A page that loads meanwhile can put the old title back, and Label Studio does
not notice: so the title is looked at again, and again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend, ProjectInfo
from ml_backend.service.connect import FIRST_TITLE

log = structlog.get_logger(__name__)


class ShowsVersions(Protocol):
    """The part of the Label Studio client that a swap needs."""

    def project(self, project_id: int) -> ProjectInfo:
        """Return what Label Studio knows under this number now."""
        ...

    def update_project(self, project_id: int, **fields: object) -> ProjectInfo:
        """Change fields of a project."""
        ...

    def backends(self, project_id: int) -> list[ConnectedBackend]:
        """Return the project's backends, as they are stored."""
        ...

    def update_backend(
        self, backend_id: int, *, project_id: int, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend:
        """Change a backend; Label Studio calls its /health and /setup meanwhile."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """What Label Studio shows of a project."""

    info: ProjectInfo
    rows: tuple[ConnectedBackend, ...]  # those that are ours
    ours: frozenset[str]  # versions of the project, and titles of its rows

    @property
    def follows(self) -> bool:
        """Whether the project shows our predictions, or lost its version by accident."""
        # "" with predictions switched on is what switching them off and on again leaves
        version = self.info.model_version
        return self.info.shows_predictions and (not version or version in self.ours)


def flip(label_studio: ShowsVersions, project: ProjectKey, version: str, known: list[str]) -> bool:
    """Make the project show the stored predictions of `version`; at least one must be there.

    Label Studio calls nobody for it. Returns whether the project shows them now: not where a
    person chose other predictions, or none.

    Raises:
        LabelStudioError
    """
    shown = _look(label_studio, project, known)
    if shown is None or not shown.rows or not shown.follows:
        return False
    if shown.info.model_version != version:
        label_studio.update_project(project.project_id, model_version=version)
    return True


def settle(
    label_studio: ShowsVersions,
    project: ProjectKey,
    version: str,
    known: Collection[str],
    *,
    strangers: set[int],
    insist: bool = False,
) -> bool:
    """Make title and project show `version`, which /setup answers; return whether they did.

    Safe to repeat at any time. A backend that a person gave another title keeps it while the
    project shows that title, unless `insist`.

    Args:
        label_studio: where the project lives.
        project: which one.
        version: what is served.
        known: all versions of the project, served or not.
        strangers: numbers of rows that proved to be another backend's; more are added.
        insist: whether a title of a person's own gives way, as it must in a swap.

    Raises:
        LabelStudioError
    """
    shown = _look(label_studio, project, known)
    if shown is None:
        return True
    wrong = [
        row
        for row in shown.rows
        if row.title != version
        and row.id not in strangers
        and (insist or not _is_a_persons(row, shown.info, known))
    ]
    if wrong:
        _retitle(label_studio, project, wrong, version, strangers)
        # a project that shows the old title follows it in the same transaction
        shown = _look(label_studio, project, known) or shown
    titled = any(row.title == version for row in shown.rows)
    flipped = titled and shown.follows and shown.info.model_version != version
    if flipped:
        label_studio.update_project(project.project_id, model_version=version)
    if flipped or wrong:
        log.info(
            "what Label Studio shows was set to what is served",
            project=str(project),
            version=version,
            titles=[row.title for row in wrong],
            showed=shown.info.model_version,
        )
    return not flipped and not wrong


def _look(
    label_studio: ShowsVersions, project: ProjectKey, known: Collection[str]
) -> _Shown | None:
    """Return what is shown, None when that project is gone (a reset server reuses its number)."""
    info = label_studio.project(project.project_id)
    if info.created_at != project.created_at:
        return None
    rows = tuple(
        row
        for row in label_studio.backends(project.project_id)
        if row.model_version in known or row.title in known
    )
    return _Shown(info=info, rows=rows, ours=frozenset(known) | {row.title for row in rows})


def _is_a_persons(row: ConnectedBackend, info: ProjectInfo, known: Collection[str]) -> bool:
    named = row.title not in known and row.title != FIRST_TITLE
    return named and info.model_version == row.title


def _retitle(
    label_studio: ShowsVersions,
    project: ProjectKey,
    rows: Collection[ConnectedBackend],
    version: str,
    strangers: set[int],
) -> None:
    """Give our rows their title; those that prove to be another's, or lead nowhere, keep theirs.

    Raises:
        LabelStudioError: none could be renamed.
    """

    def name_it(row: ConnectedBackend, title: str) -> ConnectedBackend:
        # an empty password keeps the one that Label Studio has stored
        user = row.basic_auth_user
        auth = None if user is None else BasicAuth(user=user, password="")
        return label_studio.update_backend(
            row.id, project_id=project.project_id, url=row.url, title=title, auth=auth
        )

    dead: dict[int, LabelStudioError] = {}
    for row in rows:
        try:
            answered = name_it(row, version).model_version
        except LabelStudioError as error:
            if error.status != 400:
                raise
            dead[row.id] = error  # perhaps an address we had before
            continue
        if answered and answered != version:
            log.info("backend is another one's", url=row.url, answered=answered)
            strangers.add(row.id)
            name_it(row, row.title)
    if len(dead) == len(rows):
        raise next(iter(dead.values()))
    strangers.update(dead)
