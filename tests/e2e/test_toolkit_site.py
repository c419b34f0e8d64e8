"""A real Label Studio with a toolkit class on our processes, and with our adapter in 1.0.9."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from ml_backend.labelstudio.client import LabelStudioClient
from tests.e2e.site import SECRET, Site, backend_settings, faults_of, write_nuclei
from tests.running_backend import running_backend
from tests.toolkit_server import ENVIRONMENT, is_toolkit_installed, toolkit_server
from tools.label_studio_server import GUARDS_OFF, LabelStudioServer, free_port, read_accounts
from tools.label_studio_user import LabelStudioUser

pytestmark = pytest.mark.e2e

MODEL = Path(__file__).parent / "toolkit_models" / "counting.py"
CONFIG = (
    '<View><Image name="picture" value="$image"/><RectangleLabels name="box" toName="picture">'
    '<Label value="Cell"/></RectangleLabels><Choices name="amount" toName="picture">'
    '<Choice value="Few"/><Choice value="drawn"/></Choices></View>'
)
FITTED_WITHIN_S = 90.0


@pytest.fixture(scope="module")
def toolkit_site(
    label_studio_program: Path, seed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Label Studio with personal access tokens, and a backend that serves the class."""
    folder = tmp_path_factory.mktemp("toolkit-site")
    accounts = read_accounts(seed)
    label_studio = LabelStudioServer(
        label_studio_program,
        folder / "label-studio",
        port=free_port(),
        seed=seed,
        environment=dict(GUARDS_OFF),
    )
    key = accounts.personal_access_token
    with ExitStack() as stack:
        backend = stack.enter_context(
            running_backend(
                folder,
                backend_settings(label_studio.url, key),
                arguments=["--toolkit", str(MODEL)],
            )
        )
        stack.enter_context(label_studio)
        user = LabelStudioUser(stack.enter_context(closing(label_studio.session())))
        user.allow_legacy_tokens(False)
        backend.wait_until_up()
        yield Site(
            label_studio=label_studio,
            user=user,
            client=LabelStudioClient(label_studio.url, key),
            backend=backend,
            files=folder,
            api_key=key,
        )


def test_it_predicts_learns_and_changes_its_version(toolkit_site: Site, tmp_path: Path) -> None:
    site, user = toolkit_site, toolkit_site.user
    project = user.create_project("Toolkit class", CONFIG)
    user.upload(project, write_nuclei(tmp_path / "images", 3))
    first = site.connect(project)
    assert first.startswith("CountingModel-counting-0-")
    user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, first)
    for predictions in site.predictions_by_task(project).values():
        [prediction] = predictions
        assert prediction["model_version"] == first
        assert faults_of(CONFIG, prediction) == []
        assert {region["type"] for region in prediction["result"]} == {"rectanglelabels", "choices"}
    task = user.task_ids(project)[0]
    user.submit(task, site.predictions_by_task(project)[task][0]["result"])
    deadline = time.monotonic() + FITTED_WITHIN_S
    while not site.client.backends(project)[0].title.startswith("CountingModel-counting-1-"):
        assert time.monotonic() < deadline, site.backend.log.read_text()[-4000:]
        time.sleep(1)
    second = site.client.backends(project)[0].title  # Label Studio is told without anybody asking
    user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, second)


@pytest.mark.skipif(not is_toolkit_installed(), reason="`make test` installs label-studio-ml")
def test_label_studio_talks_to_the_real_1_0_9_with_our_adapter(site: Site, tmp_path: Path) -> None:
    project = site.make_project(write_nuclei(tmp_path / "images", 3))
    settings = {"ML_BACKEND_URL": site.backend.url, "WEBHOOK_SECRET": SECRET}
    with toolkit_server(tmp_path / "projects", ENVIRONMENT, settings) as server:
        address = {"project": project, "url": server.url, "title": "toolkit"}
        version = site.user.ask("POST", "/api/ml", json=address)["model_version"]
        assert version.startswith("nuclei-1-")
        site.user.retrieve_predictions(project)
        assert site.wait_until_predicted(project, version)
        site.user.retrieve_predictions(project)  # asks for nothing: the versions are the same
        predictions = site.predictions_by_task(project)
        assert [len(rows) for rows in predictions.values()] == [1, 1, 1]
        task = site.user.task_ids(project)[0]
        site.user.submit(task, predictions[task][0]["result"])
        [row] = site.user.ask("GET", "/api/ml", params={"project": project})
        site.user.ask("POST", f"/api/ml/{row['id']}/train")
        deadline = time.monotonic() + FITTED_WITHIN_S
        while not sessions_of(site, project):  # of our learning loop
            assert time.monotonic() < deadline, server.log.read_text()[-4000:]
            time.sleep(1)


def sessions_of(site: Site, project: int) -> list[object]:
    """Return the sessions of a project."""
    url = f"{site.backend.url}/api/v1/sessions"
    answer = httpx.get(url, params={"project": str(project)}, timeout=10)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])
