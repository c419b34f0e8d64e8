"""A trained version is swapped into a real Label Studio, and nobody who annotates notices."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_backend.bootstrap.models import open_version_desk
from ml_backend.domain import Component, ProjectKey
from ml_backend.labelstudio.stored_predictions import StoredPredictions
from ml_backend.learning import Activation, ActivationState, Version, VersionState
from ml_backend.service.clean_up import CleanedUp, clean_up
from ml_backend.service.connect import BackendAddress, connect
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.versions import Versions
from tests.differing_networks import make_version
from tests.e2e.site import SECRET, Site, write_nuclei
from tests.running_backend import running_backend

pytestmark = pytest.mark.e2e

TASKS = 4
SWAPPED_WITHIN_S = 120.0


class Swapping:
    """A connected project whose tasks are predicted, and versions that could be served there."""

    def __init__(self, site: Site, project: int, database: Database, folder: Path) -> None:
        self.site = site
        self.project = project
        self.folder = folder
        self.versions = Versions(database)
        self.desk = open_version_desk(Settings(), database)
        info = site.client.project(project)
        found = Projects(database).find(info.name_in_setup)
        assert found is not None
        self.key: ProjectKey = found.key

    def publish(self, name: str, *, bias: float) -> Component:
        """Keep a version as a session does."""
        component = make_version(self.folder, name, bias=bias)
        self.versions.add(
            Version(
                project=self.key,
                name=name,
                state=VersionState.CANDIDATE,
                controls=("cells",),
                component=component,
                session_id=None,
                parent="nuclei-1",
                created_at=time.time(),
                metrics={},
            )
        )
        return component

    def wait_for(self, activation: Activation) -> Activation:
        """Wait until an activation has ended."""
        deadline = time.monotonic() + SWAPPED_WITHIN_S
        while time.monotonic() < deadline:
            now = self.desk.activation(self.key, activation.id)
            if now.state in (ActivationState.DONE, ActivationState.FAILED):
                return now
            time.sleep(0.2)
        raise AssertionError(self.site.backend.log.read_text()[-4000:])

    def swap(self, name: str) -> str:
        """Activate a version; return the version string that is served then."""
        done = self.wait_for(self.desk.activate(self.key, name, by="a test"))
        assert done.state is ActivationState.DONE, done
        assert done.release is not None
        return done.release

    def shows(self, version: str) -> bool:
        """Return whether title, project and /setup all say `version`, soon."""
        return eventually(
            lambda: (
                [row.title for row in self.site.client.backends(self.project)] == [version]
                and self.site.client.project(self.project).model_version == version
            )
        )

    def rows(self) -> Counter[str]:
        """Return how many predictions Label Studio holds of each version."""
        return Counter(row["model_version"] for row in self.site.user.predictions(self.project))


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Return whether something comes true in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.3)
    return False


@pytest.fixture
def swapping(site: Site, tmp_path: Path) -> Iterator[Swapping]:
    project = site.make_project(write_nuclei(tmp_path / "images", TASKS))
    base = site.connect(project)
    site.user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, base)
    database = Database(f"sqlite:///{site.backend.data_dir / 'records.sqlite3'}")
    yield Swapping(site, project, database, tmp_path / "versions")
    database.close()


def test_predictions_of_the_new_version_are_there_before_it_is_shown(swapping: Swapping) -> None:
    site, project = swapping.site, swapping.project
    base = site.client.project(project).model_version
    swapping.publish("one", bias=-4.0)

    one = swapping.swap("one")

    assert one.startswith("one-")
    assert swapping.rows() == {base: TASKS, one: TASKS}
    assert swapping.shows(one)
    shown = site.user.next_task(project)["predictions"]
    assert [row["model_version"] for row in shown] == [one]
    assert swapping.rows() == {base: TASKS, one: TASKS}  # and nobody was asked to predict again


def test_scores_and_uncertainty_sampling_go_on_with_the_new_version(swapping: Swapping) -> None:
    site, project = swapping.site, swapping.project
    site.user.ask("PATCH", f"/api/projects/{project}", json={"sampling": "Uncertainty sampling"})
    swapping.publish("one", bias=-4.0)

    one = swapping.swap("one")
    assert swapping.shows(one)

    scores = {
        int(row["task"]): float(row["score"])
        for row in site.user.predictions(project)
        if row["model_version"] == one
    }
    assert int(site.user.next_task(project)["id"]) == min(scores, key=lambda task: scores[task])


def test_a_task_that_was_open_during_the_swap_is_submitted(swapping: Swapping) -> None:
    site, project = swapping.site, swapping.project
    opened = site.user.next_task(project)
    (shown,) = opened["predictions"]
    swapping.publish("one", bias=-4.0)

    one = swapping.swap("one")
    annotation = site.user.submit(int(opened["id"]), shown["result"], parent_prediction=shown["id"])

    assert annotation["parent_prediction"] == shown["id"]
    assert swapping.shows(one)


def test_a_title_that_a_page_put_back_is_repaired(swapping: Swapping) -> None:
    site, project = swapping.site, swapping.project
    swapping.publish("one", bias=-4.0)
    base = site.client.project(project).model_version
    one = swapping.swap("one")
    assert swapping.shows(one)
    (row,) = site.client.backends(project)

    site.client.update_backend(row.id, project_id=project, url=row.url, title=base, auth=None)
    site.client.update_project(project, model_version=base)

    assert swapping.shows(one)


def test_rolling_back_uses_the_rows_that_are_there(swapping: Swapping) -> None:
    base = swapping.site.client.project(swapping.project).model_version
    swapping.publish("one", bias=-4.0)
    swapping.publish("two", bias=-2.0)
    one, two = swapping.swap("one"), swapping.swap("two")
    assert swapping.shows(two)
    before = swapping.rows()

    first = swapping.wait_for(swapping.desk.rollback(swapping.key, by="a test"))
    after_one = swapping.shows(one)
    second = swapping.wait_for(swapping.desk.rollback(swapping.key, by="a test"))

    assert (first.release, second.release) == (one, base)
    assert after_one
    assert swapping.shows(base)
    assert swapping.rows() == before == {base: TASKS, one: TASKS, two: TASKS}


def test_a_damaged_version_leaves_everything_as_it_was(swapping: Swapping) -> None:
    base = swapping.site.client.project(swapping.project).model_version
    component = swapping.publish("broken", bias=-4.0)
    weights = Path(component.path)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    ended = swapping.wait_for(swapping.desk.activate(swapping.key, "broken", by="a test"))

    refused = swapping.versions.get(swapping.key, "broken")
    assert ended.state is ActivationState.FAILED
    assert "checksum" in str(ended.message)
    assert refused is not None
    assert refused.state is VersionState.REFUSED
    assert swapping.shows(base)
    assert swapping.rows() == {base: TASKS}


def test_annotated_tasks_are_not_predicted_ahead(swapping: Swapping) -> None:
    site, project = swapping.site, swapping.project
    task = site.user.task_ids(project)[0]
    site.user.submit(task, [])
    swapping.publish("one", bias=-4.0)

    one = swapping.swap("one")

    assert swapping.rows()[one] == TASKS - 1
    assert swapping.shows(one)


def test_old_predictions_leave_when_nobody_can_have_them_open(swapping: Swapping) -> None:
    site, project = swapping.site, swapping.project
    base = site.client.project(project).model_version
    drafted, annotated, *free = site.user.task_ids(project)
    swapping.publish("one", bias=-4.0)
    one = swapping.swap("one")
    assert swapping.shows(one)
    site.user.ask("POST", f"/api/tasks/{drafted}/drafts", json={"result": [], "lead_time": 1})
    (seen,) = [
        row for row in site.predictions_by_task(project)[annotated] if row["model_version"] == base
    ]
    site.user.submit(annotated, [], parent_prediction=seen["id"])

    def clean(days_later: float) -> CleanedUp:
        return clean_up(
            StoredPredictions(site.client),
            swapping.key,
            served=one,
            served_since=time.time(),
            known=[base, one],
            annotated_from={int(seen["id"])},
            dry_run=False,
            clock=lambda: time.time() + days_later * 86_400,
        )

    too_early, later = clean(29), clean(31)

    assert too_early.removed == 0
    assert later == CleanedUp(removed=len(free), kept_open=1, kept_annotated=1)
    assert swapping.rows() == {base: 2, one: TASKS}
    assert site.client.project(project).model_version == one


def test_without_credentials_setup_changes_and_label_studio_asks_again(
    site: Site, tmp_path: Path
) -> None:
    settings = {"ALLOWED_HOSTS": "127.0.0.1", "SETUP_HOSTNAME": "refuse", "WEBHOOK_SECRET": SECRET}
    with running_backend(tmp_path, settings) as backend:
        backend.wait_until_up()
        project = site.make_project(write_nuclei(tmp_path / "images", 1))
        address = BackendAddress(url=backend.url, webhook_secret=SECRET)
        report = connect(site.client, str(project), address)
        assert report.connected, report.steps
        database = Database(f"sqlite:///{backend.data_dir / 'records.sqlite3'}")
        swapping = Swapping(site, project, database, tmp_path / "versions")
        swapping.publish("one", bias=-4.0)

        one = swapping.swap("one")
        database.close()
        site.client.backends(project)
        answer = site.user.ask("GET", f"/api/ml?project={project}")

        assert [row["model_version"] for row in answer] == [one]
