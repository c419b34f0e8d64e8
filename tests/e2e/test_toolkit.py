"""Our adapter in the real label-studio-ml 1.0.9, which forwards to a backend or predicts itself.

The toolkit's 2.x is not on the package index; a stand-in of ours takes its place.
"""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.labelstudio.rle import decode_mask
from tests.image_server import ImageServer, Reply
from tests.running_backend import RunningBackend, running_backend
from tests.toolkit_server import (
    ENVIRONMENT,
    ToolkitServer,
    is_toolkit_installed,
    layered_environment,
    second_generation_server,
    toolkit_server,
)

pytestmark = pytest.mark.skipif(
    not is_toolkit_installed(), reason="label-studio-ml is not installed: `make test` does it"
)

PAYLOADS = Path(__file__).resolve().parents[1] / "http" / "payloads"
SIDE = 160
POLYGONS = (
    '<View><Image name="photo" value="$image"/><PolygonLabels name="outline" toName="photo">'
    '<Label value="Nucleus"/></PolygonLabels><Choices name="quality" toName="photo">'
    '<Choice value="good"/><Choice value="bad"/></Choices></View>'
)


def recorded(name: str) -> dict[str, Any]:
    """Return the body of a request that a real Label Studio has sent."""
    exchange = json.loads((PAYLOADS / f"{name}.json").read_text(encoding="utf-8"))
    body: dict[str, Any] = exchange["request"]["body"]
    return body


@pytest.fixture(scope="module")
def label_studio() -> Iterator[ImageServer]:
    """The uploads of the recorded requests."""
    picture, _ = fluorescent_nuclei(5, (SIDE, SIDE), 9)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    with ImageServer() as server:
        for name in ("addab693-img0.png", "57a93d2c-img1.png", "3c882080-img2.png"):
            server.routes[f"/data/upload/1/{name}"] = Reply(
                headers={"Content-Type": "image/png"}, body=file.getvalue()
            )
        yield server


def settings_of(label_studio: ImageServer) -> dict[str, str]:
    """Return what a backend and the adapter are told of Label Studio."""
    return {"LABEL_STUDIO_URL": label_studio.origin, "LABEL_STUDIO_API_KEY": "2" * 40}


@pytest.fixture(scope="module")
def backend(
    tmp_path_factory: pytest.TempPathFactory, label_studio: ImageServer
) -> Iterator[RunningBackend]:
    """A running backend of ours, with both kinds of proof asked for."""
    more = {"WEBHOOK_SECRET": "hush", "BASIC_AUTH_USER": "ls", "BASIC_AUTH_PASS": "pw"}
    folder = tmp_path_factory.mktemp("backend")
    with running_backend(folder, {**settings_of(label_studio), **more}) as running:
        running.wait_until_up(("ls", "pw"))
        yield running


@pytest.fixture(scope="module")
def forwarding(
    tmp_path_factory: pytest.TempPathFactory, backend: RunningBackend
) -> Iterator[ToolkitServer]:
    """The toolkit in an environment that has our package, and nothing that it needs."""
    settings = {
        "ML_BACKEND_URL": backend.url.replace("://", "://ls:pw@"),
        "WEBHOOK_SECRET": "hush",
    }
    folder = tmp_path_factory.mktemp("forwarding") / "projects"
    with toolkit_server(folder, ENVIRONMENT, settings) as server:
        yield server


@pytest.fixture(scope="module")
def in_process(
    tmp_path_factory: pytest.TempPathFactory, label_studio: ImageServer
) -> Iterator[ToolkitServer]:
    """The toolkit in an environment that has all that our package needs."""
    folder = tmp_path_factory.mktemp("in-process")
    settings = {**settings_of(label_studio), "DATA_DIR": str(folder / "data")}
    with toolkit_server(
        folder / "projects", layered_environment(folder / "venv"), settings
    ) as server:
        yield server


@pytest.fixture(scope="module")
def second_generation(
    tmp_path_factory: pytest.TempPathFactory, backend: RunningBackend
) -> Iterator[ToolkitServer]:
    """The stand-in for 2.x, which forwards."""
    settings = {
        "ML_BACKEND_URL": backend.url,
        "WEBHOOK_SECRET": "hush",
        "BASIC_AUTH_USER": "ls",
        "BASIC_AUTH_PASS": "pw",
    }
    folder = tmp_path_factory.mktemp("second") / "project"
    with second_generation_server(folder, ENVIRONMENT, settings) as server:
        yield server


@pytest.fixture(params=["forwarding", "in_process", "second_generation"])
def either(request: pytest.FixtureRequest) -> ToolkitServer:
    """All of them, one after the other."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, ToolkitServer)
    return found


def set_up(server: ToolkitServer, body: dict[str, Any]) -> str:
    """Send /setup until it is answered, as a person tries again; return the version."""
    deadline = time.monotonic() + 90
    while True:
        answer = httpx.post(f"{server.url}/setup", json=body, timeout=10)
        if answer.status_code == 200:
            return str(answer.json()["model_version"])
        assert "try again" in answer.text, answer.text[-1000:]
        assert time.monotonic() < deadline, server.log.read_text()[-4000:]
        time.sleep(0.5)


def foreground() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return where the picture has nuclei."""
    return fluorescent_nuclei(5, (SIDE, SIDE), 9)[1] > 0


def test_recorded_requests_are_answered_with_masks(either: ToolkitServer) -> None:
    health = httpx.get(f"{either.url}/health", timeout=5)
    assert health.json()["status"] == "UP"
    version = set_up(either, recorded("setup"))
    assert version.startswith("nuclei-1-")
    body = recorded("predict_single_task")
    answer = httpx.post(f"{either.url}/predict", json=body, timeout=100).json()
    assert answer.get("model_version", version) == version  # 2.x says it in the entries only
    [entry] = answer["results"]
    assert entry["model_version"] == version
    assert 0 < entry["score"] <= 1
    assert len(entry["result"]) > 4
    found = np.zeros((SIDE, SIDE), bool)
    for region in entry["result"]:
        assert (region["from_name"], region["to_name"]) == ("cells", "image")
        assert region["value"]["brushlabels"] == ["Cell"]
        mask = decode_mask(region["value"]["rle"], SIDE, SIDE) > 0
        assert not (found & mask).any()
        found |= mask
    real = foreground()
    assert (found & real).sum() / (found | real).sum() > 0.8


def test_the_version_stays_what_it_is(either: ToolkitServer) -> None:
    # else Label Studio asks for every task again, and stores a row more each time
    first = set_up(either, recorded("setup"))
    assert set_up(either, recorded("setup")) == first


def test_each_project_is_answered_by_its_own_label_config(either: ToolkitServer) -> None:
    brushes = set_up(either, recorded("setup"))
    other = {**recorded("setup"), "project": "2.1795215690", "schema": POLYGONS}
    polygons = set_up(either, other)  # 1.0.9 keeps this one's model for both
    assert polygons != brushes
    body = recorded("predict_batch")
    answer = httpx.post(f"{either.url}/predict", json=body, timeout=100).json()
    assert [entry["model_version"] for entry in answer["results"]] == [brushes, brushes]
    body = {**body, "project": other["project"], "label_config": POLYGONS}
    answer = httpx.post(f"{either.url}/predict", json=body, timeout=100).json()
    assert len(answer["results"]) == 2
    for entry in answer["results"]:
        assert entry["model_version"] == polygons
        assert {region["from_name"] for region in entry["result"]} == {"outline"}
        assert {region["type"] for region in entry["result"]} == {"polygonlabels"}


def test_a_task_without_its_image_harms_no_other(either: ToolkitServer) -> None:
    set_up(either, recorded("setup"))
    body = recorded("predict_batch")
    body["tasks"][0]["data"]["image"] = "/data/upload/1/00000000-gone.png"
    answer = httpx.post(f"{either.url}/predict", json=body, timeout=100).json()
    assert answer["results"][0] == {}
    assert answer["results"][1]["result"]


def test_a_label_config_that_cannot_be_served_is_refused_with_its_sentence(
    forwarding: ToolkitServer, in_process: ToolkitServer
) -> None:
    for server in (forwarding, in_process):
        refuse(server)


def refuse(server: ToolkitServer) -> None:
    """Set up a project that has no images."""
    set_up(server, recorded("setup"))
    text = '<View><Text name="t" value="$text"/><Choices name="c" toName="t"/></View>'
    body = {**recorded("setup"), "project": "3.1795215691", "schema": text}
    answer = httpx.post(f"{server.url}/setup", json=body, timeout=10)
    assert answer.status_code == 500
    assert "no control that cell masks or classes can feed" in answer.text


@pytest.mark.parametrize("which", ["forwarding", "second_generation"])
def test_events_reach_the_learning_loop(
    which: str, request: pytest.FixtureRequest, backend: RunningBackend
) -> None:
    server: ToolkitServer = request.getfixturevalue(which)
    set_up(server, recorded("setup"))
    known = len(rows(backend, "SELECT id FROM events"))
    for name in ("webhook_ANNOTATION_CREATED", "webhook_START_TRAINING"):
        event = recorded(name)
        event["sent_through"] = which  # the very same event twice counts once
        answer = httpx.post(f"{server.url}/webhook", json=event, timeout=5)
        assert answer.status_code == 201

    def arrived() -> set[str]:
        actions = rows(backend, "SELECT action FROM events WHERE id > ?", known)
        return {action for (action,) in actions}

    wait_for(lambda: arrived() == {"ANNOTATION_CREATED", "START_TRAINING"})
    assert wait_for(lambda: rows(backend, "SELECT id FROM sessions"))


def test_forwarding_loads_no_network_library(forwarding: ToolkitServer) -> None:
    maps = Path(f"/proc/{forwarding.server_pid()}/maps").read_text()
    assert "python" in maps
    for library in ("torch", "numpy", "sqlalchemy"):
        assert library not in maps


def test_a_backend_that_is_away_costs_predictions_only(tmp_path: Path) -> None:
    settings = {"ML_BACKEND_URL": "http://127.0.0.1:1"}
    with toolkit_server(tmp_path / "projects", ENVIRONMENT, settings) as server:
        answer = httpx.post(f"{server.url}/setup", json=recorded("setup"), timeout=5)
        assert answer.status_code == 500
        assert "check ML_BACKEND_URL" in answer.text
        body = recorded("predict_batch")
        answer = httpx.post(f"{server.url}/predict", json=body, timeout=5)
        assert answer.status_code == 500  # 1.0.9 has no model before the first good /setup


def test_the_toolkit_is_the_one_of_the_index() -> None:
    code = "import label_studio_ml, importlib.metadata as m; print(m.version('label-studio-ml'))"
    python = ENVIRONMENT / "bin" / "python"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "1.0.9"


def rows(backend: RunningBackend, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return rows of a backend's records."""
    path = backend.data_dir / "records.sqlite3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return connection.execute(query, values).fetchall()


def wait_for(look: Callable[[], Any], within_s: float = 60.0) -> Any:
    """Return the first thing that is true of what `look` returns."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")
