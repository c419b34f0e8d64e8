"""The doctor finds what is wrong and says what to do; everything it looks at is made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_backend.domain import Component, FetchedFile
from ml_backend.errors import ImageFetchError, LabelStudioError, ModelNotFound, StoreError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.webhooks import ORIGIN_HEADER
from ml_backend.service.checks import Check, Status, any_failed
from ml_backend.service.connect import BackendAddress, connect
from ml_backend.service.doctor import Instruments, run_checks
from ml_backend.service.label_studio_checks import check_reachable
from ml_backend.service.machine_checks import check_data_dir, check_device
from ml_backend.settings import Settings
from tests.fakes import FakeLabelStudio

URL = "http://localhost:9090"
UP = {"status": "UP", "model_version": "cells-1-3fa9c2d1", "device": "cpu"}
COMPONENT = Component(
    name="cells-1", architecture="residual-unet", sha256="ab" * 32, path="x", licence="CC0-1.0"
)


def settings_for(folder: Path, **given: Any) -> Settings:
    """Return settings of a backend with a Label Studio, whatever the environment says."""
    return Settings.model_validate(
        {
            "data_dir": folder,
            "label_studio_url": "http://localhost:8080",
            "label_studio_api_key": "0" * 40,
            "webhook_secret": "s3cret",
            "device": "cpu",
            **given,
        }
    )


def instruments_for(
    label_studio: FakeLabelStudio | None,
    answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json=UP),
    **given: Any,
) -> Instruments:
    """Return instruments that find everything in order."""
    return replace(
        Instruments(
            open_database=lambda: None,
            ping_redis=lambda: None,
            resolve_model=lambda: COMPONENT,
            resolve_embedder=lambda: COMPONENT,
            parse_label_config=parse_label_config,
            fetch=lambda url, task_id: FetchedFile(path=Path(url), sha256="0", size=1_000_000),
            http=httpx.Client(transport=httpx.MockTransport(answer)),
            label_studio=label_studio,
        ),
        **given,
    )


def connected_label_studio(**given: Any) -> FakeLabelStudio:
    """Return a Label Studio to which the backend is connected."""
    label_studio = FakeLabelStudio(**given)
    connect(label_studio, "3", BackendAddress(url=URL, webhook_secret="s3cret"))
    return label_studio


def examine(
    folder: Path, label_studio: FakeLabelStudio | None, project: str | None = "3", **given: Any
) -> list[Check]:
    """Return all checks of a backend at `URL`."""
    instruments = instruments_for(label_studio, **given)
    return run_checks(settings_for(folder), instruments, backend_url=URL, project=project)


def named(checks: Sequence[Check], name: str) -> Check:
    """Return the first check of that name."""
    return next(check for check in checks if check.name == name)


def failing(error: Exception) -> Callable[..., Any]:
    """Return a function that raises."""

    def fail(*_: object) -> Any:
        raise error

    return fail


def test_everything_in_order_is_all_ok(tmp_path: Path) -> None:
    checks = examine(tmp_path, connected_label_studio())

    assert {check.status for check in checks} == {Status.OK}
    assert not any_failed(checks)


def test_what_fails_on_the_machine_is_told_with_a_remedy(tmp_path: Path) -> None:
    checks = examine(
        tmp_path,
        None,
        open_database=failing(StoreError("the records cannot be opened")),
        resolve_model=failing(ModelNotFound("there is no model 'x'")),
        resolve_embedder=failing(ModelNotFound("there is no embedder 'x'")),
    )

    assert any_failed(checks)
    assert named(checks, "database").status is Status.FAILED
    assert "MODEL=auto" in named(checks, "model").remedy
    assert "EMBEDDER=shapes-1" in named(checks, "embedder").remedy


def test_redis_is_looked_at_only_where_it_is_used(tmp_path: Path) -> None:
    with_redis = settings_for(tmp_path, redis_url="redis://localhost:1")
    instruments = instruments_for(None, ping_redis=failing(ConnectionRefusedError("refused")))

    used = run_checks(with_redis, instruments, backend_url=URL)
    unused = run_checks(settings_for(tmp_path), instruments, backend_url=URL)

    assert named(used, "redis").status is Status.FAILED
    assert "redis" not in {check.name for check in unused}


def test_a_backend_that_does_not_answer_is_to_be_started(tmp_path: Path) -> None:
    checks = examine(tmp_path, None, answer=failing(httpx.ConnectError("Connection refused")))

    assert named(checks, "backend").status is Status.FAILED
    assert "ml-backend serve" in named(checks, "backend").remedy


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(401), "BASIC_AUTH_USER"),
        (httpx.Response(503, json={"message": "the engine is starting"}), "engine is starting"),
        (httpx.Response(200, text="<html>"), "Another program"),
    ],
)
def test_a_backend_that_answers_badly_is_understood(
    tmp_path: Path, answer: httpx.Response, words: str
) -> None:
    checks = examine(tmp_path, None, answer=lambda _: answer)

    assert named(checks, "backend").status is Status.FAILED
    assert words in named(checks, "backend").sentence


def test_an_engine_of_its_own_is_asked_with_the_secret(tmp_path: Path) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=UP)

    settings = settings_for(tmp_path, engine_url="http://engine:9090", engine_secret="between us")
    checks = run_checks(settings, instruments_for(None, answer), backend_url=URL)

    (engine,) = [request for request in asked if request.url.host == "engine"]
    assert named(checks, "engine").status is Status.OK
    assert engine.headers["Authorization"] == "Bearer between us"


def test_without_a_project_the_doctor_says_what_was_not_looked_at(tmp_path: Path) -> None:
    checks = examine(tmp_path, connected_label_studio(), project=None)

    assert checks[-1].name == "project"
    assert "--project" in checks[-1].remedy


@pytest.mark.parametrize(
    ("guard", "name"),
    [("blocks_backends", "ML_BLOCK_LOCAL_IP"), ("blocks_webhooks", "SSRF_PROTECTION_ENABLED")],
)
def test_a_network_guard_is_found_with_its_remedy(tmp_path: Path, guard: str, name: str) -> None:
    label_studio = connected_label_studio()
    setattr(label_studio, guard, True)

    checks = examine(tmp_path, label_studio)

    assert named(checks, name).status is Status.FAILED
    assert f"{name}=false" in named(checks, name).remedy


def test_a_project_without_our_backend_is_to_be_connected(tmp_path: Path) -> None:
    checks = examine(tmp_path, FakeLabelStudio())

    assert named(checks, "connection").remedy == f"ml-backend connect 3 --url {URL}"
    assert named(checks, "webhook").status is Status.FAILED


def test_a_version_that_differs_from_the_title_is_found(tmp_path: Path) -> None:
    label_studio = connected_label_studio()
    label_studio.rows[0] = replace(label_studio.rows[0], model_version="cells-2-00000000")

    checks = examine(tmp_path, label_studio)

    assert named(checks, "connection").status is Status.WARNING
    assert "cells-2-00000000" in named(checks, "connection").sentence


def test_a_webhook_with_an_old_secret_is_found(tmp_path: Path) -> None:
    label_studio = FakeLabelStudio()
    connect(label_studio, "3", BackendAddress(url=URL, webhook_secret="y3sterday"))

    checks = examine(tmp_path, label_studio)

    assert named(checks, "webhook").status is Status.FAILED
    assert "y3sterday" not in repr(checks)


def test_a_webhook_with_an_old_password_is_found(tmp_path: Path) -> None:
    label_studio = connected_label_studio()  # before Basic auth was switched on

    settings = settings_for(tmp_path, basic_auth_user="ls", basic_auth_pass="y3sterday")
    checks = run_checks(settings, instruments_for(label_studio), backend_url=URL, project="3")

    assert named(checks, "webhook").status is Status.FAILED
    assert "y3sterday" not in repr(checks)


def test_another_name_of_this_machine_is_known_as_ours(tmp_path: Path) -> None:
    label_studio = connected_label_studio()

    url = URL.replace("localhost", "127.0.0.1")
    instruments = instruments_for(label_studio)
    checks = run_checks(settings_for(tmp_path), instruments, backend_url=url, project="3")

    assert named(checks, "connection").status is Status.OK
    assert named(checks, "webhook").status is Status.OK


def test_an_event_that_the_backend_refuses_is_found(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401 if request.url.path == "/webhook" else 200, json=UP)

    checks = examine(tmp_path, connected_label_studio(), answer=answer)

    assert named(checks, "webhook return path").status is Status.FAILED
    assert "WEBHOOK_SECRET" in named(checks, "webhook return path").remedy


def test_an_orphaned_webhook_is_found(tmp_path: Path) -> None:
    label_studio = connected_label_studio()
    label_studio.create_webhook(3, "http://old:9090/webhook", {ORIGIN_HEADER: label_studio.url})

    checks = examine(tmp_path, label_studio)

    assert named(checks, "orphaned webhooks").status is Status.WARNING


def test_an_image_that_cannot_be_fetched_is_found(tmp_path: Path) -> None:
    checks = examine(
        tmp_path, connected_label_studio(), fetch=failing(ImageFetchError("401 from Label Studio"))
    )

    assert named(checks, "image").status is Status.FAILED
    assert "401" in named(checks, "image").sentence


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("$images[0].url", "/data/upload/3/nested.png"),
        ("http://files.example/$name", "http://files.example/cells.png"),
    ],
)
def test_an_image_address_is_read_as_the_engine_reads_it(
    tmp_path: Path, value: str, address: str
) -> None:
    config = FakeLabelStudio().label_config.replace('"$image"', f'"{value}"')
    data = {"images": [{"url": "/data/upload/3/nested.png"}], "name": "cells.png"}
    fetched = []

    def fetch(url: str, task_id: int) -> FetchedFile:
        fetched.append(url)
        return FetchedFile(path=Path(url), sha256="0", size=1_000_000)

    label_studio = connected_label_studio(label_config=config, task_data=data)
    checks = examine(tmp_path, label_studio, fetch=fetch)

    assert named(checks, "image").status is Status.OK
    assert fetched == [address]


def test_a_config_that_masks_cannot_feed_is_found(tmp_path: Path) -> None:
    text = '<View><Text name="t" value="$t"/></View>'

    checks = examine(tmp_path, connected_label_studio(label_config=text))

    assert named(checks, "label config").status is Status.FAILED


def test_a_missing_key_is_a_warning_and_ends_the_look(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, label_studio_api_key=None)

    checks = run_checks(
        settings, instruments_for(connected_label_studio()), backend_url=URL, project="3"
    )

    assert checks[-1].name == "API key"
    assert checks[-1].status is Status.WARNING


@dataclass
class SilentLabelStudio(FakeLabelStudio):
    """A Label Studio that does not answer."""

    def version(self) -> str:
        """Fail."""
        raise LabelStudioError("Label Studio cannot be reached")


def test_localhost_inside_a_container_is_explained(tmp_path: Path) -> None:
    mark = tmp_path / ".dockerenv"

    outside = check_reachable(SilentLabelStudio(), container_mark=mark)
    mark.touch()
    inside = check_reachable(SilentLabelStudio(), container_mark=mark)
    answering = check_reachable(FakeLabelStudio(), container_mark=mark)

    assert "container" not in outside.sentence + outside.remedy
    assert "host.docker.internal" in inside.remedy
    assert answering.status is Status.OK


def test_a_silent_label_studio_ends_the_look(tmp_path: Path) -> None:
    checks = examine(tmp_path, SilentLabelStudio())

    assert checks[-1].name == "Label Studio"
    assert checks[-1].status is Status.FAILED


def test_an_address_that_is_not_set_is_a_warning(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, label_studio_url=None, label_studio_api_key=None)

    checks = run_checks(settings, instruments_for(None), backend_url=URL)

    assert named(checks, "LABEL_STUDIO_URL").status is Status.WARNING


def test_a_data_folder_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    check = check_data_dir(tmp_path / "file")

    assert check.status is Status.FAILED
    assert "DATA_DIR" in check.remedy


def test_a_device_that_is_not_there_is_explained() -> None:
    check = check_device("cuda:99")

    assert check.status is Status.FAILED
    assert "DEVICE=auto" in check.remedy
