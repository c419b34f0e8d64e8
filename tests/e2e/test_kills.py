"""The ledger equals Label Studio's annotations although everything of ours was killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ml_backend.store.database import Database
from tests.e2e.site import backend_settings, open_site, write_nuclei
from tests.e2e.test_ledger import SIDE, Desk, polygon
from tests.running_backend import processes_of, running_backend, wait_until_gone
from tools.label_studio_server import read_accounts

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]

EQUAL_WITHIN_S = 120.0  # of a busy machine; it reconciles every few seconds
CHANCE = random.Random()  # noqa: S311 - other moments in each run are what is wanted
TIMES = [pytest.param(3, id="3 times"), pytest.param(20, id="20 times", marks=pytest.mark.slow)]


def kill_all(data_dir: Path) -> None:
    """Kill everything that works on a data folder."""
    for pid in processes_of(data_dir):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def work_a_while(desk: Desk, number: int) -> None:
    """Create, change, skip and delete annotations for about two seconds."""
    user, tasks = desk.site.user, desk.site.user.task_ids(desk.project)
    for step, task in enumerate(tasks):
        made = user.submit(task, polygon(f"{number}-{task}"), was_cancelled=step == 4)
        if step % 3 == 0:
            changed = {"result": polygon(f"{number}-{task}-changed")}
            user.ask("PATCH", f"/api/annotations/{made['id']}/", json=changed)
        elif step % 3 == 1:
            user.delete_annotation(made["id"])
        time.sleep(CHANCE.uniform(0, 0.5))


@pytest.mark.parametrize("times", TIMES)
def test_nothing_that_people_did_is_lost_when_the_whole_tree_is_killed(
    label_studio_program: Path, seed: Path, tmp_path: Path, times: int
) -> None:
    with (
        open_site(tmp_path, label_studio_program, seed, personal_token=False) as site,
        ExitStack() as stack,
    ):
        project = site.make_project(write_nuclei(tmp_path / "images", 6, side=SIDE))
        site.connect(project)
        data_dir = site.backend.data_dir
        database = stack.enter_context(
            closing(Database(f"sqlite:///{data_dir / 'records.sqlite3'}"))
        )
        desk = Desk(site, database, project)
        settings = backend_settings(site.label_studio.url, read_accounts(seed).legacy_token)
        port = int(site.backend.url.rpartition(":")[2])

        for number in range(times):
            killer = threading.Timer(CHANCE.uniform(0, 2), kill_all, (data_dir,))
            killer.start()
            work_a_while(desk, number)
            killer.join()
            assert wait_until_gone(data_dir) == {}
            backend = stack.enter_context(
                running_backend(tmp_path, {**settings, "RECONCILE_S": "10"}, port=port)
            )
            backend.wait_until_up()

        deadline = time.monotonic() + EQUAL_WITHIN_S
        while desk.ours() != desk.theirs() and time.monotonic() < deadline:
            time.sleep(1)  # the running trainer does it; the test only looks
        assert desk.ours() == desk.theirs()
        assert len(desk.theirs()) == 4 * times  # two of six are deleted each time
