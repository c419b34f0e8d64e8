"""Missing images, batches that take too long, engines that die: annotators go on working."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.site import SECRET, Site, backend_settings, write_nuclei
from tests.running_backend import STOP_WITHIN_S, running_backend, wait_until_gone
from tools.label_studio_server import read_accounts

pytestmark = pytest.mark.e2e


def test_a_missing_image_spoils_neither_the_batch_nor_the_task(site: Site, tmp_path: Path) -> None:
    project = site.make_project(write_nuclei(tmp_path, 2))
    version = site.connect(project)
    site.user.import_tasks(project, [{"image": f"/data/upload/{project}/deadbeef-gone.png"}])
    first, second, missing = site.user.task_ids(project)

    site.user.retrieve_predictions(project)
    opened = site.user.open_task(project, missing)
    annotation = site.user.submit(missing, [])

    found = site.predictions_by_task(project)
    assert [row["model_version"] for row in found[first] + found[second]] == [version] * 2
    assert found[missing] == []
    assert opened["predictions"] == []
    assert annotation["task"] == missing


def test_a_batch_that_takes_too_long_is_answered_in_time_and_delivered_later(
    site: Site, seed: Path, tmp_path: Path
) -> None:
    key = read_accounts(seed).legacy_token
    settings = {**backend_settings(site.label_studio.url, key), "PREDICT_BUDGET_S": "2"}
    with running_backend(tmp_path, settings) as backend:
        backend.wait_until_up()
        project = site.make_project(write_nuclei(tmp_path / "images", 12, side=512, cells=60))
        version = site.connect(project, backend)

        site.user.retrieve_predictions(project)
        at_once = sum(bool(rows) for rows in site.predictions_by_task(project).values())
        site.user.retrieve_predictions(project)  # a person who tries again meanwhile
        delivered = site.wait_until_predicted(project, version)

        found = site.predictions_by_task(project)
        assert at_once < 12
        assert delivered
        assert [[row["model_version"] for row in rows] for rows in found.values()] == [
            [version]
        ] * 12


def test_an_engine_that_is_killed_in_the_middle_costs_no_task(
    site: Site, seed: Path, tmp_path: Path
) -> None:
    key = read_accounts(seed).legacy_token
    with running_backend(tmp_path, backend_settings(site.label_studio.url, key)) as backend:
        backend.wait_until_up()
        project = site.make_project(write_nuclei(tmp_path / "images", 8, side=384, cells=40))
        version = site.connect(project, backend)
        batch = threading.Thread(target=site.user.retrieve_predictions, args=(project,))

        batch.start()
        time.sleep(1.0)
        os.kill(backend.process_named("engine"), signal.SIGKILL)
        batch.join(timeout=120)
        site.user.retrieve_predictions(project)
        delivered = site.wait_until_predicted(project, version)

        found = site.predictions_by_task(project)
        assert not batch.is_alive()
        assert delivered
        assert [len(rows) for rows in found.values()] == [1] * 8


def test_annotators_work_on_while_the_backend_is_away_and_when_it_is_back(
    site: Site, seed: Path, tmp_path: Path
) -> None:
    settings = backend_settings(site.label_studio.url, read_accounts(seed).legacy_token)
    project = site.make_project(write_nuclei(tmp_path / "images", 2))
    with running_backend(tmp_path, settings) as backend:
        backend.wait_until_up()
        version = site.connect(project, backend)
        backend.process.send_signal(signal.SIGTERM)
        code = backend.process.wait(timeout=STOP_WITHIN_S)
        left = wait_until_gone(backend.data_dir, within_s=1)
        without = site.user.next_task(project)

    port = int(backend.url.rpartition(":")[2])
    with running_backend(tmp_path, settings, port=port) as again:
        again.wait_until_up()
        site.user.submit(without["id"], [])
        with_prediction = site.user.next_task(project)

    assert code == 0
    assert left == {}
    assert without["predictions"] == []
    assert [row["model_version"] for row in with_prediction["predictions"]] == [version]
    assert SECRET not in backend.log.read_text()
