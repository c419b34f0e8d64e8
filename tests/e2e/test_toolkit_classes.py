"""A class of the label-studio-ml toolkit, unchanged, on our processes: `serve --toolkit`."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.image_server import ImageServer, Reply
from tests.running_backend import RunningBackend, running_backend

MODELS = Path(__file__).parent / "toolkit_models"
CONFIG = (
    '<View><Image name="picture" value="$image"/><RectangleLabels name="box" toName="picture">'
    '<Label value="Cell"/></RectangleLabels><Choices name="amount" toName="picture">'
    '<Choice value="Few"/><Choice value="drawn"/></Choices></View>'
)
PATIENCE_S = 90.0


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project of a Label Studio that a test plays."""

    backend: RunningBackend
    images: ImageServer
    number: int
    extra_params: Any = None

    def setup(self) -> str:
        """Send /setup as Label Studio does; return the version."""
        body = {
            "project": f"{self.number}.1795215681",
            "schema": CONFIG,
            "hostname": self.images.origin,
            "access_token": "0" * 40,
            "extra_params": self.extra_params,
        }
        answer = httpx.post(f"{self.backend.url}/setup", json=body, timeout=3.0)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["model_version"])

    def predict(self, *names: str, context: Any = None) -> list[dict[str, Any]]:
        """Send /predict for these images; return the entries."""
        tasks = [
            {
                "id": 100 * self.number + index,
                "data": {"image": f"{self.images.origin}/{name}"},
                "annotations": [],
                "predictions": [],
                "project": self.number,
            }
            for index, name in enumerate(names)
        ]
        body = {
            "tasks": tasks,
            "project": f"{self.number}.1795215681",
            "label_config": CONFIG,
            "params": {"login": None, "password": None, "context": context},
        }
        answer = httpx.post(f"{self.backend.url}/predict", json=body, timeout=100.0)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    def tell(self, action: str, **content: Any) -> str:
        """Send a webhook; return its job."""
        project = {
            "id": self.number,
            "created_at": "2026-11-20T23:01:21.138274Z",
            "label_config": CONFIG,
        }
        body = {"action": action, "project": project, **content}
        answer = httpx.post(f"{self.backend.url}/webhook", json=body, timeout=1.0)
        assert answer.status_code == 201
        return str(answer.json()["job"])

    def annotate(self, annotation: int, text: str = "") -> str:
        """Say that somebody has annotated; return the job."""
        return self.tell(
            "ANNOTATION_CREATED",
            annotation={"id": annotation, "task": 1, "result": [], "note": text},
            task={"id": 1, "data": {"image": "x"}},
        )

    def job(self, job: str) -> dict[str, Any]:
        """Return what /job_status says."""
        answer = httpx.post(f"{self.backend.url}/job_status", json={"job": job}, timeout=5.0)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_for_job(self, job: str, *states: str) -> dict[str, Any]:
        """Wait until a job has come to one of these states; return it."""
        found = wait_for(lambda: (j := self.job(job))["state"] in states and j)
        assert isinstance(found, dict)
        return found

    def wait_for_version(self, beginning: str) -> str:
        """Wait until /setup answers a version that begins so."""
        return str(wait_for(lambda: (v := self.setup()).startswith(beginning) and v))


def wait_for(look: Callable[[], Any]) -> Any:
    """Return the first thing that is true of what `look` returns."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")


def picture(seed: int = 1) -> bytes:
    """Return a PNG of 64 x 32 pixels with a bright part at (16, 8) to (31, 23)."""
    pixels = np.zeros((32, 64), np.uint8)
    pixels[8:24, 16:32] = 200 + seed
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images() -> Iterator[ImageServer]:
    """A Label Studio, as far as images go."""
    with ImageServer() as server:
        for number in range(4):
            server.routes[f"/{number}.png"] = Reply(
                headers={"Content-Type": "image/png"}, body=picture(number)
            )
        yield server


@pytest.fixture(scope="module")
def backend(
    tmp_path_factory: pytest.TempPathFactory, images: ImageServer
) -> Iterator[RunningBackend]:
    """Our processes with the class, started as a person would."""
    folder = tmp_path_factory.mktemp("toolkit")
    settings = {
        "LABEL_STUDIO_URL": images.origin,
        "LABEL_STUDIO_API_KEY": "1" * 40,
        "PREDICT_BUDGET_S": "20",
    }
    arguments = ["--toolkit", str(MODELS / "counting.py")]
    with running_backend(folder, settings, arguments=arguments) as running:
        running.wait_until_up()
        yield running


def test_predictions_of_the_class_arrive_under_a_version_of_ours(
    backend: RunningBackend, images: ImageServer
) -> None:
    project = Project(backend=backend, images=images, number=1)
    version = project.setup()
    assert version.startswith("CountingModel-counting-0-")
    first, second = project.predict("0.png", "1.png")
    assert first["model_version"] == second["model_version"] == version
    assert first["score"] == 0.75
    box, choice = first["result"]
    assert box["value"]["x"] == 25.0
    assert box["value"]["width"] == 25.0
    assert box["value"]["y"] == 25.0
    assert (box["from_name"], box["to_name"]) == ("box", "picture")
    assert choice["value"] == {"choices": ["Few"]}


def test_images_are_fetched_with_our_token_and_kept(
    backend: RunningBackend, images: ImageServer
) -> None:
    project = Project(backend=backend, images=images, number=2)
    project.setup()
    assert project.predict("2.png")[0]["result"]
    asked = [one for one in images.asked if one.path == "/2.png"]
    assert [one.headers["authorization"] for one in asked] == [f"Token {'1' * 40}"]
    project.predict("2.png")
    assert len([one for one in images.asked if one.path == "/2.png"]) == 1


def test_a_raising_predict_harms_only_its_task(
    backend: RunningBackend, images: ImageServer
) -> None:
    project = Project(backend=backend, images=images, number=3)
    project.setup()
    bad, good = project.predict("raise.png", "1.png")
    assert bad == {}
    assert good["result"]
    log = backend.log.read_text()
    assert "RuntimeError: this image is not for me; counting.py, line" in log
    assert "Traceback" not in log


def test_what_a_person_draws_reaches_the_class(
    backend: RunningBackend, images: ImageServer
) -> None:
    project = Project(backend=backend, images=images, number=4)
    project.setup()
    [plain] = project.predict("3.png")
    [drawn] = project.predict("3.png", context={"result": [{"type": "keypointlabels"}]})
    [again] = project.predict("3.png")
    assert drawn["result"][1]["value"] == {"choices": ["drawn"]}
    assert again == plain


def test_annotations_are_fitted_in_order_and_make_new_versions(
    backend: RunningBackend, images: ImageServer
) -> None:
    project = Project(backend=backend, images=images, number=5)
    first = project.setup()
    jobs = [project.annotate(number) for number in range(1, 6)]
    done = project.wait_for_job(jobs[-1], "completed")
    assert done["sessions"][0]["controls"] == ["toolkit"]
    version = project.wait_for_version("CountingModel-counting-5-")
    [entry] = project.predict("0.png")
    assert entry["model_version"] == version
    assert version in httpx.get(f"{backend.url}/versions?project=5.1795215681").json()["versions"]
    assert first != version
    project.tell("START_TRAINING")
    project.wait_for_version("CountingModel-trained-5-")


def test_a_failing_fit_says_why(backend: RunningBackend, images: ImageServer) -> None:
    project = Project(backend=backend, images=images, number=6)
    project.setup()
    job = project.tell("ANNOTATION_DELETED", annotation={"id": 3})
    failed = project.wait_for_job(job, "failed")
    assert "RuntimeError: deletions are too much for me; counting.py" in failed["message"]
    project.annotate(8)
    project.wait_for_version("CountingModel-counting-1-")


def test_a_fit_that_kills_its_process_is_tried_again(
    backend: RunningBackend, images: ImageServer, tmp_path: Path
) -> None:
    marker = tmp_path / "died"
    extra = {"die_once": str(marker)}
    project = Project(backend=backend, images=images, number=7, extra_params=extra)
    project.setup()
    project.annotate(1, "deadly")
    project.annotate(2)
    project.wait_for_version("CountingModel-counting-2-")
    assert marker.exists()


def test_killing_the_trainer_during_fit_is_survived(
    backend: RunningBackend, images: ImageServer
) -> None:
    extra = {"seconds": 8}
    project = Project(backend=backend, images=images, number=8, extra_params=extra)
    project.setup()
    project.annotate(1)
    project.wait_for_version("CountingModel-counting-1-")
    job = project.tell("START_TRAINING")
    wait_for(lambda: any("train-session" in line for line in backend.processes().values()))
    wait_for(lambda: project.job(job)["state"] in ("running", "queued"))
    time.sleep(3)
    os.kill(backend.process_named("trainer"), signal.SIGKILL)
    project.wait_for_version("CountingModel-trained-1-")
    assert project.predict("0.png")[0]["result"]


def test_only_engine_and_trainer_import_the_class(backend: RunningBackend) -> None:
    import json

    lines = [json.loads(line) for line in backend.log.read_text().splitlines() if line[:1] == "{"]
    importers = {line["process"] for line in lines if line["event"] == "toolkit class imported"}
    assert importers == {"engine", "training"}
    pid = backend.process_named("web")
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "torch" not in maps


def test_a_class_that_cannot_be_imported_stops_serve_with_a_sentence(tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text("import a_package_that_nobody_has\n")
    with running_backend(tmp_path, arguments=["--toolkit", str(model)]) as running:
        assert running.process.wait(timeout=60) == 78
        assert "No module named 'a_package_that_nobody_has'" in running.log.read_text()
