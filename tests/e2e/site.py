"""A real Label Studio with our backend beside it, for end-to-end tests."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.labelstudio.client import LabelStudioClient
from ml_backend.service.connect import BackendAddress, connect
from tests.running_backend import RunningBackend, running_backend
from tools.label_studio_server import GUARDS_OFF, LabelStudioServer, free_port, read_accounts
from tools.label_studio_user import LabelStudioUser

CONFIGS = Path(__file__).resolve().parents[2] / "label_configs"
SECRET = "shared-with-the-webhook"
PREPARED_WITHIN_S = 60.0
DELIVERED_WITHIN_S = 240.0  # of what a busy machine cannot answer at once
_titles = (f"Project {number}" for number in itertools.count(1))


@dataclass(frozen=True, kw_only=True)
class Site:
    """One Label Studio, a person who is logged in, and one backend."""

    label_studio: LabelStudioServer
    user: LabelStudioUser
    client: LabelStudioClient
    backend: RunningBackend
    files: Path  # what Label Studio may serve as local files
    api_key: str  # of the person, legacy or personal access token

    def make_project(self, images: Sequence[Path], config: str = "polygons.xml") -> int:
        """Return the number of a new project with these uploads, not connected yet."""
        project = self.user.create_project(next(_titles), (CONFIGS / config).read_text())
        if images:
            self.user.upload(project, images)
        return project

    def connect(self, project: int, backend: RunningBackend | None = None) -> str:
        """Connect a backend, ours by default; return the version that its /setup answered."""
        address = BackendAddress(url=(backend or self.backend).url, webhook_secret=SECRET)
        deadline = time.monotonic() + PREPARED_WITHIN_S
        report = connect(self.client, str(project), address)
        while time.monotonic() < deadline and any(
            "still preparing" in step.sentence for step in report.steps
        ):  # a model that nobody has asked for before: "try again in a few seconds"
            time.sleep(1)
            report = connect(self.client, str(project), address)
        assert report.connected, report.steps
        assert report.version is not None
        return report.version

    def wait_until_predicted(self, project: int, version: str) -> bool:
        """Wait until every task has a prediction of this version, answered or delivered later."""
        tasks = self.user.task_ids(project)
        deadline = time.monotonic() + DELIVERED_WITHIN_S
        while time.monotonic() < deadline:
            if self.client.tasks_with_prediction(project, tasks, version) == set(tasks):
                return True
            time.sleep(1)
        return False

    def predictions_by_task(self, project: int) -> dict[int, list[Mapping[str, Any]]]:
        """Return all stored predictions, an empty list for tasks that have none."""
        found: dict[int, list[Mapping[str, Any]]] = {
            task: [] for task in self.user.task_ids(project)
        }
        for prediction in self.user.predictions(project):
            found[int(prediction["task"])].append(prediction)
        return found


@contextmanager
def open_site(folder: Path, program: Path, seed: Path, *, personal_token: bool) -> Iterator[Site]:
    """Start both servers and log in.

    Args:
        folder: for everything they write.
        program: `label-studio`.
        seed: of Label Studio's data, from `shared_seed`.
        personal_token: whether legacy tokens are off, as in a new organization.
    """
    files = folder / "files"
    files.mkdir(parents=True)
    accounts = read_accounts(seed)
    key = accounts.personal_access_token if personal_token else accounts.legacy_token
    label_studio = LabelStudioServer(
        program,
        folder / "label-studio",
        port=free_port(),
        seed=seed,
        environment={
            **GUARDS_OFF,
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files),
        },
    )
    with ExitStack() as stack:
        settings = backend_settings(label_studio.url, key)
        backend = stack.enter_context(running_backend(folder, settings))
        stack.enter_context(label_studio)
        user = LabelStudioUser(stack.enter_context(closing(label_studio.session())))
        user.allow_legacy_tokens(not personal_token)
        backend.wait_until_up()
        yield Site(
            label_studio=label_studio,
            user=user,
            client=LabelStudioClient(label_studio.url, key),
            backend=backend,
            files=files,
            api_key=key,
        )


def backend_settings(label_studio_url: str, key: str) -> dict[str, str]:
    """Return the environment of a backend that belongs to this Label Studio."""
    return {
        "LABEL_STUDIO_URL": label_studio_url,
        "LABEL_STUDIO_API_KEY": key,
        "WEBHOOK_SECRET": SECRET,
        "MODEL": "auto",
    }


def write_nuclei(
    folder: Path, count: int, *, side: int = 128, cells: int = 6, first_seed: int = 1
) -> list[Path]:
    """Write made-up fluorescence images of side x side pixels; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for seed in range(first_seed, first_seed + count):
        picture, _ = fluorescent_nuclei(seed, (side, side), cells)
        file = folder / f"nuclei-{seed:03d}.png"
        Image.fromarray(picture).save(file)
        files.append(file)
    return files


def faults_of(config: str, prediction: Mapping[str, Any]) -> list[str]:
    """Return what Label Studio's own validator says against a prediction."""
    from label_studio_sdk.label_interface import LabelInterface

    entry = {name: prediction[name] for name in ("result", "score", "model_version")}
    return list(LabelInterface(config).validate_prediction(entry, return_errors=True))
