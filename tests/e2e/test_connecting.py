"""`ml-backend connect` against a real Label Studio, and what it says when something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ml_backend.labelstudio.client import LabelStudioClient
from ml_backend.labelstudio.webhooks import ORIGIN_HEADER, SECRET_HEADER, webhook_url
from ml_backend.service.checks import Status
from ml_backend.service.connect import BackendAddress, connect
from tests.e2e.site import SECRET, Site, write_nuclei
from tools.label_studio_server import LabelStudioServer, free_port
from tools.label_studio_user import LabelStudioUser

pytestmark = pytest.mark.e2e

CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)


def test_connect_makes_title_version_and_shown_predictions_the_same(either_site: Site) -> None:
    project = either_site.make_project([])

    version = either_site.connect(project)

    (row,) = either_site.client.backends(project)
    shown = either_site.client.project(project)
    (hook,) = either_site.client.webhooks(project)
    assert row.title == row.model_version == shown.model_version == version
    assert shown.shows_predictions
    assert hook.url == webhook_url(either_site.backend.url)
    assert hook.headers[SECRET_HEADER] == SECRET
    assert hook.headers[ORIGIN_HEADER] == either_site.label_studio.url
    assert hook.is_active
    assert hook.sends_all_actions


def test_connecting_again_changes_nothing(site: Site) -> None:
    project = site.make_project([])
    site.connect(project)
    before = site.client.backends(project), site.client.webhooks(project)

    site.connect(project)

    assert (site.client.backends(project), site.client.webhooks(project)) == before


def test_connect_repairs_what_people_changed(site: Site) -> None:
    project = site.make_project([])
    version = site.connect(project)
    (row,) = site.client.backends(project)
    (hook,) = site.client.webhooks(project)
    site.client.update_backend(row.id, project_id=project, url=row.url, title="mine", auth=None)
    site.user.ask("PATCH", f"/api/projects/{project}", json={"show_collab_predictions": False})
    site.user.ask("PATCH", f"/api/webhooks/{hook.id}/", json={"headers": {}, "is_active": False})

    site.connect(project)

    (repaired,) = site.client.webhooks(project)
    assert site.client.backends(project)[0].title == version
    assert site.client.project(project).model_version == version
    assert repaired.headers[SECRET_HEADER] == SECRET
    assert repaired.is_active


def test_connect_removes_our_orphans_and_no_other_webhook(site: Site) -> None:
    project = site.make_project([])
    gone, foreign = "http://127.0.0.1:1/webhook", "http://127.0.0.1:2/webhook"
    site.client.create_webhook(project, gone, {ORIGIN_HEADER: site.label_studio.url})
    site.client.create_webhook(project, foreign, {"X-Other": "program"})

    site.connect(project)

    urls = {hook.url for hook in site.client.webhooks(project)}
    assert urls == {foreign, webhook_url(site.backend.url)}


def test_a_backend_that_does_not_run_is_named_with_what_to_do(site: Site) -> None:
    project = site.make_project([])

    report = connect(site.client, str(project), BackendAddress(url="http://127.0.0.1:1"))

    assert not report.connected
    assert report.steps[-1].name == "backend"
    assert "health check failed" in report.steps[-1].sentence
    assert "ml-backend serve" in report.steps[-1].remedy
    assert site.client.backends(project) == []


def test_a_config_without_image_says_so_in_label_studio(site: Site) -> None:
    project = site.user.create_project(
        "Reviews", '<View><Text name="text" value="$text"/><Choices name="c" toName="text">'
        '<Choice value="a"/></Choices></View>'
    )  # fmt: skip

    report = connect(site.client, str(project), BackendAddress(url=site.backend.url))

    assert not report.connected
    assert "no control that cell masks or classes can feed" in report.steps[-1].sentence
    assert "PolygonLabels" in report.steps[-1].sentence


def test_predictions_that_exist_are_found_without_loading_them(site: Site, tmp_path: Path) -> None:
    project = site.make_project(write_nuclei(tmp_path, 3))
    version = site.connect(project)
    first, second, third = site.user.task_ids(project)
    site.user.open_task(project, first)
    site.user.open_task(project, third)

    found = site.client.tasks_with_prediction(project, [first, second, third], version)

    assert found == {first, third}
    assert site.client.tasks_with_prediction(project, [first], version[:-1]) == set()
    assert [task.id for task in site.client.tasks(project)] == [first, second, third]


@contextmanager
def guarded_label_studio(
    program: Path, seed: Path, folder: Path, environment: dict[str, str]
) -> Iterator[tuple[LabelStudioServer, LabelStudioClient, int]]:
    """Start a Label Studio with a guard on and make a project in it."""
    server = LabelStudioServer(
        program, folder / "guarded", port=free_port(), seed=seed, environment=environment
    )
    with server, closing(server.session()) as session:
        project = LabelStudioUser(session).create_project("Guarded", CONFIG)
        yield server, LabelStudioClient(server.url, server.accounts.legacy_token), project


def test_both_guards_keep_us_out_and_connect_says_how_to_switch_them_off(
    site: Site, label_studio_program: Path, seed: Path, tmp_path: Path
) -> None:
    with guarded_label_studio(label_studio_program, seed, tmp_path, {}) as (_, client, project):
        report = connect(client, str(project), BackendAddress(url=site.backend.url))

        assert not report.connected
        assert "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false" in str(report.steps[-1])
        assert client.backends(project) == []
        assert client.refuses_backends_at(project, "127.0.0.1")
        assert client.refuses_webhooks_to(project, webhook_url(site.backend.url))


def test_the_webhook_guard_alone_lets_predictions_through_but_no_events(
    site: Site, label_studio_program: Path, seed: Path, tmp_path: Path
) -> None:
    environment = {"ML_BLOCK_LOCAL_IP": "false"}
    with guarded_label_studio(label_studio_program, seed, tmp_path, environment) as (
        _,
        client,
        project,
    ):
        report = connect(client, str(project), BackendAddress(url=site.backend.url))

        found = {step.name: step.status for step in report.steps}
        assert not report.connected
        assert found["backend"] is Status.WARNING
        assert found["webhook"] is Status.FAILED
        assert len(client.backends(project)) == 1
        assert not client.refuses_backends_at(project, "127.0.0.1")
        assert client.refuses_webhooks_to(project, webhook_url(site.backend.url))


def test_no_guard_is_reported_where_none_is_on(site: Site) -> None:
    project = site.make_project([])

    assert not site.client.refuses_backends_at(project, "127.0.0.1")
    assert not site.client.refuses_webhooks_to(project, webhook_url(site.backend.url))
    assert site.client.backends(project) == []
    assert site.client.webhooks(project) == []
