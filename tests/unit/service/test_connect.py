"""Connecting a project, on a Label Studio that behaves as the real one was measured to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend
from ml_backend.labelstudio.webhooks import ORIGIN_HEADER, SECRET_HEADER
from ml_backend.service.checks import Status
from ml_backend.service.connect import BackendAddress, ConnectReport, connect
from tests.fakes import FakeLabelStudio

URL = "http://localhost:9090"
ADDRESS = BackendAddress(url=URL, webhook_secret="s3cret")


def statuses(report: ConnectReport) -> dict[str, Status]:
    """Return how each step went, by name."""
    return {step.name: step.status for step in report.steps}


def test_title_version_and_shown_predictions_become_one() -> None:
    label_studio = FakeLabelStudio()

    report = connect(label_studio, "Cells", ADDRESS)

    assert report.connected
    assert report.version == "cells-1-3fa9c2d1"
    assert [row.title for row in label_studio.rows] == ["cells-1-3fa9c2d1"]
    assert label_studio.own_project.model_version == "cells-1-3fa9c2d1"


def test_the_webhook_carries_secret_and_origin() -> None:
    label_studio = FakeLabelStudio()

    connect(label_studio, "3", ADDRESS)

    (hook,) = label_studio.hooks
    assert hook.url == f"{URL}/webhook"
    assert hook.headers == {SECRET_HEADER: "s3cret", ORIGIN_HEADER: "http://localhost:8080"}


def test_the_webhook_names_the_origin_by_which_the_project_was_introduced() -> None:
    label_studio = FakeLabelStudio()
    asked = []

    def known_origin(name: str) -> str:
        asked.append(name)
        return "http://labels.example.org"

    connect(label_studio, "3", ADDRESS, known_origin=known_origin)

    assert asked == ["3.1795215681"]
    assert label_studio.hooks[0].headers[ORIGIN_HEADER] == "http://labels.example.org"


@pytest.mark.parametrize("again", ["http://127.0.0.1:9090", "http://[::1]:9090/", URL + "/"])
def test_another_name_of_this_machine_is_the_same_backend(again: str) -> None:
    label_studio = FakeLabelStudio()
    connect(label_studio, "3", ADDRESS)
    label_studio.writes.clear()

    report = connect(label_studio, "3", BackendAddress(url=again, webhook_secret="s3cret"))

    assert report.connected
    assert [row.url for row in label_studio.rows] == [URL]
    assert [hook.url for hook in label_studio.hooks] == [f"{URL}/webhook"]
    assert label_studio.writes == []


@pytest.mark.parametrize("other", ["http://127.0.0.1:9091", "https://127.0.0.1:9090", URL + "/b"])
def test_another_port_scheme_or_path_is_another_backend(other: str) -> None:
    label_studio = FakeLabelStudio()
    connect(label_studio, "3", ADDRESS)

    connect(label_studio, "3", BackendAddress(url=other, webhook_secret="s3cret"))

    assert [row.url for row in label_studio.rows] == [URL, other]


def test_of_two_rows_for_one_backend_the_one_with_the_given_address_is_taken() -> None:
    label_studio = FakeLabelStudio()
    for url in (URL, "http://127.0.0.1:9090"):  # as earlier versions left it
        label_studio.create_backend(3, url=url, title="Cell backend", auth=None)

    report = connect(label_studio, "3", BackendAddress(url="http://127.0.0.1:9090"))

    assert [row.title for row in label_studio.rows] == ["Cell backend", report.version]
    assert statuses(report)["other backends"] is Status.WARNING


def test_a_second_run_writes_nothing() -> None:
    label_studio = FakeLabelStudio()
    connect(label_studio, "3", ADDRESS)
    label_studio.writes.clear()

    report = connect(label_studio, "3", ADDRESS)

    assert report.connected
    assert label_studio.writes == []


def test_a_title_that_a_page_puts_back_is_set_again() -> None:
    label_studio = FakeLabelStudio(reverts=1)

    report = connect(label_studio, "3", ADDRESS)

    assert report.connected
    assert label_studio.rows[0].title == label_studio.own_project.model_version == report.version


def test_a_title_that_is_put_back_for_ever_is_reported() -> None:
    label_studio = FakeLabelStudio(reverts=1000)

    report = connect(label_studio, "3", ADDRESS)

    assert not report.connected
    assert statuses(report)["predictions"] is Status.FAILED


def test_a_new_version_is_taken_over() -> None:
    label_studio = FakeLabelStudio()
    connect(label_studio, "3", ADDRESS)
    label_studio.setup_version = "cells-2-99887766"

    report = connect(label_studio, "3", ADDRESS)

    assert report.version == "cells-2-99887766"
    assert label_studio.rows[0].title == "cells-2-99887766"
    assert label_studio.own_project.model_version == "cells-2-99887766"


def test_basic_auth_goes_to_the_backend_and_onto_the_webhook() -> None:
    label_studio = FakeLabelStudio()
    auth = BasicAuth(user="ls", password="pw")

    connect(label_studio, "3", BackendAddress(url=URL, auth=auth))

    assert label_studio.rows[0].basic_auth_user == "ls"
    assert label_studio.hooks[0].headers["Authorization"] == "Basic bHM6cHc="


def test_headers_that_people_added_to_the_webhook_stay() -> None:
    label_studio = FakeLabelStudio()
    label_studio.create_webhook(3, f"{URL}/webhook", {"X-Team": "imaging"})

    connect(label_studio, "3", ADDRESS)

    (hook,) = label_studio.hooks
    assert hook.headers["X-Team"] == "imaging"
    assert hook.headers[SECRET_HEADER] == "s3cret"


def test_orphans_and_doubles_of_ours_go_and_other_webhooks_stay() -> None:
    label_studio = FakeLabelStudio()
    marked = {ORIGIN_HEADER: "http://localhost:8080"}
    label_studio.create_webhook(3, "http://old:9090/webhook", marked)
    label_studio.create_webhook(3, "http://other/hook", {})
    label_studio.create_webhook(3, f"{URL}/webhook", marked)
    label_studio.create_webhook(3, f"{URL}/webhook", marked)

    report = connect(label_studio, "3", ADDRESS)

    assert [hook.url for hook in label_studio.hooks] == ["http://other/hook", f"{URL}/webhook"]
    assert "http://old:9090/webhook" in report.steps[-1].sentence


def test_a_backend_that_was_moved_gets_its_events_at_the_new_address() -> None:
    label_studio = FakeLabelStudio()
    connect(label_studio, "3", ADDRESS)
    (row,) = label_studio.rows
    moved = "http://elsewhere:9090"
    # Label Studio leaves the webhook at the old address, and makes none for the new one
    label_studio.update_backend(row.id, project_id=3, url=moved, title=row.title, auth=None)

    connect(label_studio, "3", BackendAddress(url=moved, webhook_secret="s3cret"))

    (hook,) = label_studio.hooks
    assert hook.url == f"{moved}/webhook"
    assert hook.headers[SECRET_HEADER] == "s3cret"


def test_without_a_secret_connect_warns() -> None:
    label_studio = FakeLabelStudio()

    report = connect(label_studio, "3", BackendAddress(url=URL))

    assert report.connected
    assert statuses(report)["webhook secret"] is Status.WARNING


def test_another_backend_before_ours_is_named() -> None:
    label_studio = FakeLabelStudio()
    label_studio.create_backend(3, url="http://other:9090", title="older", auth=None)

    report = connect(label_studio, "3", ADDRESS)

    assert statuses(report)["other backends"] is Status.WARNING
    assert "http://other:9090" in str(report.steps)


def test_the_guard_on_backends_stops_everything_with_its_remedy() -> None:
    label_studio = FakeLabelStudio(blocks_backends=True)

    report = connect(label_studio, "3", ADDRESS)

    assert not report.connected
    assert report.version is None
    assert label_studio.rows == []
    assert label_studio.hooks == []


def test_the_guard_on_webhooks_leaves_predictions_and_names_its_remedy() -> None:
    label_studio = FakeLabelStudio(blocks_webhooks=True)

    report = connect(label_studio, "3", ADDRESS)

    assert not report.connected
    assert statuses(report)["backend"] is Status.WARNING
    assert statuses(report)["predictions"] is Status.OK
    assert statuses(report)["webhook"] is Status.FAILED
    assert "SSRF_PROTECTION_ENABLED=false" in str(report.steps)


def test_a_project_that_does_not_exist_is_a_sentence() -> None:
    report = connect(FakeLabelStudio(), "Plankton", ADDRESS)

    assert not report.connected
    assert "Plankton" in report.steps[0].sentence


@dataclass
class RefusingLabelStudio(FakeLabelStudio):
    """A Label Studio that says why it would not take the backend."""

    reason: str = ""

    def create_backend(self, *_: object, **__: object) -> ConnectedBackend:
        """Refuse."""
        raise LabelStudioError(self.reason, status=400)


def test_the_sentence_of_a_backend_that_refuses_the_config_is_shown_in_words() -> None:
    reason = "400 Client Error for url: http://localhost:9090/refused/There_is_no_Image!%20Add_one"

    report = connect(RefusingLabelStudio(reason=reason), "3", ADDRESS)

    assert report.steps[-1].sentence.endswith("this project: There is no Image! Add one")
    assert report.steps[-1].remedy == ""


def test_a_backend_that_does_not_run_is_to_be_started() -> None:
    reason = "Can't connect to ML backend http://localhost:9090, health check failed."

    report = connect(RefusingLabelStudio(reason=reason), "3", ADDRESS)

    assert "ml-backend serve" in report.steps[-1].remedy


def test_a_backend_without_version_is_reported() -> None:
    report = connect(FakeLabelStudio(setup_version=""), "3", ADDRESS)

    assert not report.connected
    assert report.version is None


def test_secrets_are_not_in_the_report() -> None:
    address = BackendAddress(
        url=URL, webhook_secret="s3cret", auth=BasicAuth(user="ls", password="pa55")
    )

    report = connect(FakeLabelStudio(), "3", address)

    assert "s3cret" not in repr((report, address))
    assert "pa55" not in repr((report, address))
