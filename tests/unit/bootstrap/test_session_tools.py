"""A session's tools on a real project, with the built-in network."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml_backend.bootstrap.session_tools import Workshop
from ml_backend.bootstrap.workplace import Workplace
from ml_backend.domain import Component
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.cellpose import open_segmenter
from ml_backend.learning import Lease, Session, SessionState, TrainingParameters
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.training.interruption import Interruption
from ml_backend.training.session_log import EVERY_S, Phase, SessionLog
from tests.training_site import CONFIG, PROJECT, TrainingSite, training_site

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")

TASKS = 4


class Bench:
    """The tools of a session that another process would have."""

    def __init__(
        self,
        site: TrainingSite,
        parameters: TrainingParameters,
        workshop: type[Workshop] = Workshop,
    ) -> None:
        self.site = site
        self.session: Session = site.request(parameters)
        lease = site.sessions.claim(self.session.id, owner="test", lease_s=30.0)
        assert isinstance(lease, Lease)
        self.lease = lease
        every = itertools.count(step=EVERY_S)  # each look at the clock is late enough to note
        self.journal = SessionLog(
            site.sessions, lease, self.session, clock=lambda: float(next(every))
        )
        settings = Settings(
            data_dir=site.data_dir, model="nuclei-1", device="cpu", allowed_hosts="127.0.0.1"
        )
        self.database = Database(f"sqlite:///{site.data_dir / 'records.sqlite3'}")
        self.segmenter = open_segmenter(torch.device("cpu"))
        place = Workplace(
            settings=settings,
            database=self.database,
            session=self.session,
            journal=self.journal,
            interruption=Interruption(),
            folder=site.folder / "session",
            device=torch.device("cpu"),
        )
        self.workshop = workshop(place, self.segmenter)

    def furthest(self) -> list[int]:
        """Return how far the records say that the session has come."""
        return list(self.site.now(self.session).progress["furthest"])

    def close(self) -> None:
        """Free what it has opened."""
        self.segmenter.close()
        self.database.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TrainingSite]:
    with training_site(tmp_path, tasks=TASKS) as made:
        yield made


def test_each_task_read_and_each_image_scored_is_progress_in_the_records(
    site: TrainingSite,
) -> None:
    bench = Bench(site, TrainingParameters())
    tools = bench.workshop.tools()

    bench.journal.phase(Phase.DATASET)
    dataset = tools.dataset()
    while_reading = bench.furthest()
    bench.journal.phase(Phase.BASELINE)
    tools.score(tools.base, [*dataset.training, *dataset.hold_out])
    bench.close()

    assert while_reading[:2] == [0, 0]
    assert while_reading[2] >= TASKS
    assert bench.furthest() == [1, 0, TASKS]


def test_a_training_from_a_served_network_that_is_gone_starts_from_the_base(
    site: TrainingSite,
) -> None:
    base = resolve_component("nuclei-1", models_dir=Path("/nowhere"), cuda=False)
    gone = replace(base, name="nuclei-1-p1-v1", sha256="gone", path=str(site.folder / "gone"))

    class ServesWhatIsGone(Workshop):
        def _served(self) -> list[Component]:
            return [gone]

    bench = Bench(site, TrainingParameters(from_active=True), ServesWhatIsGone)

    start: Component = bench.workshop.tools().start
    bench.close()

    assert start == base
    assert "nuclei-1-p1-v1" in site.now(bench.session).report["start"]


def test_what_the_controls_asked_for_is_settled_with_the_dataset(site: TrainingSite) -> None:
    bench = Bench(site, TrainingParameters())
    settled = bench.workshop.tools().dataset().manifest["base_requested"]
    bench.close()
    site.sessions.finish(bench.lease, SessionState.FAILED, message="The disk is full.")
    projects = Projects(Database(f"sqlite:///{site.data_dir / 'records.sqlite3'}"))
    changed = CONFIG.replace('toName="image"', 'toName="image" model_plane="0"')
    projects.record(PROJECT, hostname=None, access_token=None, label_config=changed)

    resumed = Bench(site, TrainingParameters())  # in the same folder
    again = resumed.workshop.tools().dataset().manifest["base_requested"]
    resumed.close()

    assert settled == again == "nuclei-1"
