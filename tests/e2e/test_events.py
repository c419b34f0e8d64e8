"""What annotators do reaches our records, through the webhook that `connect` sets up."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from ml_backend.store.database import Database
from ml_backend.store.events import Event, Events
from ml_backend.store.schema import EventRow
from tests.e2e.site import Site, write_nuclei

pytestmark = pytest.mark.e2e

ARRIVES_WITHIN_S = 10.0
ENDS_WITHIN_S = 60.0  # what has nothing to learn


def events_of(site: Site, project: int) -> list[Event]:
    """Return the recorded events of a project, in order, also those the trainer worked on."""
    database = Database(f"sqlite:///{site.backend.data_dir / 'records.sqlite3'}")
    query = select(EventRow.job).where(EventRow.project_id == project).order_by(EventRow.id)
    with closing(database), database.read() as session:
        jobs = list(session.scalars(query))
        found = [Events(database).get(job) for job in jobs]
    return [event for event in found if event is not None]


def wait_for_actions(site: Site, project: int, wanted: set[str]) -> list[Event]:
    """Return the events of a project once all wanted actions are among them."""
    deadline = time.monotonic() + ARRIVES_WITHIN_S
    while True:
        found = events_of(site, project)
        if wanted <= {event.action for event in found} or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_annotations_are_recorded_with_the_label_studio_they_come_from(
    either_site: Site, tmp_path: Path
) -> None:
    site = either_site
    project = site.make_project(write_nuclei(tmp_path, 1))
    site.connect(project)
    task = site.user.next_task(project)

    annotation = site.user.submit(task["id"], task["predictions"][0]["result"])
    site.user.ask("PATCH", f"/api/annotations/{annotation['id']}/", json={"result": []})
    site.user.delete_annotation(annotation["id"])

    actions = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
    found = {event.action: event for event in wait_for_actions(site, project, actions)}
    assert actions <= set(found)
    assert {event.origin for event in found.values()} == {site.label_studio.url}
    assert json.loads(found["ANNOTATION_CREATED"].payload)["annotation"]["id"] == annotation["id"]


def test_start_training_is_recorded_and_followed_to_its_end(site: Site) -> None:
    project = site.make_project([])
    site.connect(project)
    (row,) = site.client.backends(project)

    site.user.ask("POST", f"/api/ml/{row.id}/train", json={})

    found = wait_for_actions(site, project, {"START_TRAINING"})
    (event,) = [event for event in found if event.action == "START_TRAINING"]
    deadline = time.monotonic() + ENDS_WITHIN_S
    status: dict[str, Any] = {}
    while status.get("state") != "completed" and time.monotonic() < deadline:
        status = httpx.post(f"{site.backend.url}/job_status", json={"job": event.job}).json()
        time.sleep(0.2)
    assert status["state"] == "completed"
    assert "Nobody has annotated" in status["message"]
    assert status["version"] is None


def test_an_event_without_the_secret_is_refused(site: Site) -> None:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}

    answer = httpx.post(f"{site.backend.url}/webhook", json=body)

    assert answer.status_code == 401
    assert "ml-backend connect" in answer.json()["message"]
