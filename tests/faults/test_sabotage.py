"""Trainings that must go wrong: what comes of them is never served, and it is said why.

Each session is real: events as Label Studio sends them reach a running backend, whose trainer
fine-tunes the built-in network. Taught as they should be, the same images lead to a version that
is served; so it is the sabotage that keeps the others from it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PillowImage

from ml_backend.domain import LabelImage, ProjectKey, Segmentation
from ml_backend.engines.catalogue import RESIDUAL_UNET
from ml_backend.imaging.sample_shapes import Kind, draw_outlines, smooth_noise
from ml_backend.imaging.samples import Picture, fluorescent_nuclei
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.results import build_result
from ml_backend.learning import (
    ENDED,
    Promotion,
    Session,
    SessionState,
    Side,
    TrainingParameters,
    Version,
    VersionState,
)
from ml_backend.recipes import recipe_for
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from ml_backend.training.gate import ENOUGH_IMAGES, LEAST_PRECISION
from ml_backend.training.split import decide_sides
from tests.image_server import ImageServer, Reply
from tests.running_backend import RunningBackend, running_backend

pytestmark = pytest.mark.faults

IMAGES = 23  # the fewest of which five are held out: the gate asks least of a candidate then
SIZE = 96  # pixels, both ways
COUNT = 9  # cells in an image
WITHIN_S = 400.0  # of a busy machine; a session takes less than a minute
CREATED_AT = "2026-11-20T23:01:21.057970Z"
CREATED_AT_S = 1_795_215_681
SHORT = {"model_epochs": 10, "model_samples": 16, "model_batch_size": 4}  # 40 steps are enough
RECIPE = recipe_for(RESIDUAL_UNET, TrainingParameters(), images=IMAGES)
TOO_FAST: Mapping[str, Any] = {"model_learning_rate": 1000 * RECIPE.learning_rate}
KNOWN, UNKNOWN = (0.8, 1.0), (0.0, 0.1)  # AP at 0.5 of the base network, least and most

Draw = Callable[[int], tuple[Picture, LabelImage]]
_PATCHES = Kind(radius=11, spread=0.12, elongation=1.3, roughness=0.05, touching=0.0)


def nuclei(seed: int) -> tuple[Picture, LabelImage]:
    """Return inverted fluorescence: the built-in network finds nearly all, but not to the pixel."""
    picture, labels = fluorescent_nuclei(seed, (SIZE, SIZE), COUNT)
    return 255 - picture, labels


def patches(seed: int) -> tuple[Picture, LabelImage]:
    """Return cells that only their grain tells from the rest: the built-in network finds none."""
    random = np.random.default_rng(seed)
    cells = draw_outlines(random, (SIZE, SIZE), COUNT, _PATCHES)
    grain = np.where(cells.labels > 0, 60, 8) * smooth_noise(random, (SIZE, SIZE), 1.2)
    return np.clip(128 + grain, 0, 255).astype(np.uint8), cells.labels


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a training led to."""

    session: Session
    versions: Sequence[Version]
    activations: int  # ever asked for
    base_release: str  # what was served before
    release: Callable[[], str]  # what is served now

    @property
    def gate(self) -> Mapping[str, Any]:
        """Return what the gate compared; empty when the session never got there."""
        numbers: Mapping[str, Any] = self.session.report.get("gate", {})
        return numbers

    def assert_never_served(self) -> None:
        """Check that nothing but a candidate came of it, and that a sentence says so."""
        assert self.session.state in (SessionState.COMPLETED, SessionState.FAILED)
        if self.session.state is SessionState.FAILED:  # of the sabotage, and nothing else
            assert "learning rate" in str(self.session.message)
        assert str(self.session.message).endswith(".")
        assert [one.state for one in self.versions] in ([], [VersionState.CANDIDATE])
        assert self.activations == 0
        assert self.release() == self.base_release


class Teacher:
    """Annotates projects in a running backend as Label Studio's people would, and trains them."""

    def __init__(self, backend: RunningBackend, images: ImageServer, database: Database) -> None:
        """Prepare it; `database` is the backend's."""
        self._client = httpx.Client(base_url=backend.url, timeout=30)
        self._images = images
        self._projects, self._sessions = Projects(database), Sessions(database)
        self._versions = Versions(database)
        self._log = backend.log
        self._count = 0

    def teach(self, draw: Draw, *, shuffled: bool = False, **options: object) -> Ended:
        """Annotate a new project, press Start Training and wait for what comes of it.

        Args:
            draw: makes its images.
            shuffled: whether the outlines of a training image are those of another one.
            options: of the root tag.
        """
        self._count += 1
        number = self._count
        given = {"model_training": "manual", "model_group": "well", **SHORT, **options}
        config = (
            "<View " + " ".join(f'{name}="{value}"' for name, value in given.items()) + ">"
            '<Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
            '<Label value="Cell"/></PolygonLabels></View>'
        )
        base_release = self._release(number, config)
        key = self._key(number)
        tasks = range(1, IMAGES + 1)
        sides = decide_sides([f"well:{task}" for task in tasks], {})
        training = [task for task in tasks if sides[f"well:{task}"] is Side.TRAINING]
        others = dict(zip(training, [*training[1:], training[0]], strict=True)) if shuffled else {}
        drawn = {task: draw(task) for task in tasks}
        for task in tasks:
            labels = drawn[others.get(task, task)][1]
            self._annotate(number, task, drawn[task][0], _regions(labels, config))
        job = self._send(number, {"action": "START_TRAINING"})
        session = self._ended(job)
        learned = {image["task"]: image["side"] for image in session.manifest.get("images", [])}
        assert learned == {task: sides[f"well:{task}"].value for task in tasks}
        return Ended(
            session=session,
            versions=self._versions.all(key),
            activations=len(self._versions.history(key)),
            base_release=base_release,
            release=lambda: self._release(number, config),
        )

    def _release(self, number: int, config: str) -> str:
        body = {"project": f"{number}.{CREATED_AT_S}", "schema": config, "hostname": "http://ls"}
        answer = self._client.post("/setup", json=body).raise_for_status().json()
        return str(answer["model_version"])

    def _key(self, number: int) -> ProjectKey:
        (found,) = [p.key for p in self._projects.all() if p.key.project_id == number]
        return found

    def _annotate(
        self, number: int, task: int, picture: Picture, result: list[dict[str, Any]]
    ) -> None:
        stored = io.BytesIO()
        PillowImage.fromarray(picture).save(stored, "PNG")
        path = f"/{number}/{task}.png"
        self._images.routes[path] = Reply(body=stored.getvalue())
        self._send(
            number,
            {
                "action": "ANNOTATION_CREATED",
                "annotation": {
                    "id": task,
                    "task": task,
                    "result": result,
                    "was_cancelled": False,
                    "ground_truth": False,
                    "updated_at": CREATED_AT,
                },
                "task": {
                    "id": task,
                    "data": {"image": self._images.origin + path, "well": str(task)},
                },
            },
        )

    def _send(self, number: int, event: dict[str, Any]) -> str:
        project = {"id": number, "created_at": CREATED_AT, "min_annotations_to_start_training": 0}
        answer = self._client.post("/webhook", json={**event, "project": project})
        return str(answer.raise_for_status().json()["job"])

    def _ended(self, job: str) -> Session:
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            status = self._client.post("/job_status", json={"job": job}).json()
            for row in status.get("sessions", []):
                session = self._sessions.get(row["id"])
                if session is not None and session.state in ENDED:
                    return session
            time.sleep(0.2)
        raise AssertionError(self._log.read_text()[-6000:])


def _regions(labels: LabelImage, config: str) -> list[dict[str, Any]]:
    """Return instances as a person's polygons."""
    found = Segmentation(labels=labels, scores=np.ones(labels.max(), np.float32), diameter=20.0)
    return build_result({"cells": found}, parse_label_config(config)).regions


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teacher]:
    """Return a teacher of a backend that all tests here share."""
    settings = {
        "ALLOWED_HOSTS": "127.0.0.1",
        "MODEL": "nuclei-1",
        "DEVICE": "cpu",
        "TRAINING_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    folder = tmp_path_factory.mktemp("sabotage")
    with ImageServer() as images, running_backend(folder, settings) as backend:
        backend.wait_until_up()
        records = Database(f"sqlite:///{backend.data_dir / 'records.sqlite3'}")
        with closing(records):
            yield Teacher(backend, images, records)


@pytest.mark.parametrize("draw", [nuclei, patches])
def test_a_training_that_nobody_sabotages_is_served(teacher: Teacher, draw: Draw) -> None:
    ended = teacher.teach(draw)

    assert ended.session.state is SessionState.COMPLETED, ended.session.message
    assert ended.gate["passed"], ended.session.message
    assert ended.gate["images"] == ENOUGH_IMAGES
    assert ended.activations == 1
    deadline = time.monotonic() + WITHIN_S
    while (served := ended.release()) == ended.base_release and time.monotonic() < deadline:
        time.sleep(0.2)
    assert served != ended.base_release


@pytest.mark.parametrize(
    "sabotage",
    [
        pytest.param(TOO_FAST, id="learning rate times 1000"),
        pytest.param({"shuffled": True}, id="shuffled outlines"),
    ],
)
@pytest.mark.parametrize(
    ("draw", "least", "most", "promotion"),
    [
        pytest.param(nuclei, *KNOWN, Promotion.AUTO, id="known"),
        pytest.param(nuclei, *KNOWN, Promotion.ALWAYS, id="known, always", marks=pytest.mark.slow),
        pytest.param(patches, *UNKNOWN, Promotion.AUTO, id="unknown"),
        pytest.param(patches, *UNKNOWN, Promotion.ALWAYS, id="unknown, always"),
    ],
)
def test_a_sabotaged_training_is_never_served(
    teacher: Teacher,
    draw: Draw,
    least: float,
    most: float,
    promotion: Promotion,
    sabotage: Mapping[str, Any],
) -> None:
    ended = teacher.teach(draw, model_promote=promotion.value, **sabotage)

    ended.assert_never_served()
    if ended.gate:
        assert least <= ended.gate["base"]["ap50"] <= most
        assert not ended.gate["passed"]
        # where it reached more, a project that always promotes would have its way
        assert ended.gate["candidate"]["ap50"] < LEAST_PRECISION


def test_a_training_that_unlearns_to_find_cells_is_ended_early(teacher: Teacher) -> None:
    ended = teacher.teach(nuclei, model_validation_interval=1, **TOO_FAST)

    ended.assert_never_served()
    assert ended.session.state is SessionState.FAILED
    assert "the learning rate is too high" in str(ended.session.message)
    assert ended.versions == []
