"""`client.models` and `client.projects`: look, serve, move in and out."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.responses import Response

from ml_backend.client import Client, Served
from ml_backend.client.arrays import decode_npy
from ml_backend.errors import BadRequest, CheckpointInvalid, Conflict, NotFound, ServerError
from ml_backend.learning import ActivationState
from tests.scripted_api import ScriptedApi, answered, refused

MODELS = "/api/v1/models"
PROJECT = {"key": "http://ls#3.9", "id": 3, "created_at": None, "label_studio": "http://ls"}
BUILT_IN = {
    "name": "nuclei-1",
    "kind": "built_in",
    "licence": "CC0-1.0",
    "architecture": "residual-unet",
    "sha256": "0" * 64,
    "diameter": None,
    "project": None,
    "dataset": None,
    "session": None,
    "parent": None,
    "lineage": [],
    "metrics": {},
    "controls": [],
    "serves": [{"project": "http://ls#3.9", "control": "cells"}],
    "state": "built_in",
    "created_at": None,
    "url": "http://localhost:9090/api/v1/models/nuclei-1",
    "message": None,
    "available": True,
}
ACTIVATION = {
    "id": 7,
    "project": PROJECT,
    "state": "requested",
    "release": None,
    "versions": {"cells": "nuclei-1-p3-v1"},
    "back_to_base": [],
    "reason": "microscope activated nuclei-1-p3-v1",
    "message": None,
    "created_at": "2026-11-20T23:01:21.000+00:00",
    "finished_at": None,
}


def test_models_are_found(client: Client, api: ScriptedApi) -> None:
    api.on(f"GET {MODELS}", answered({"items": [BUILT_IN], "next": None}))
    api.on(f"GET {MODELS}/nuclei-1", answered({**BUILT_IN, "project": PROJECT}))

    (listed,) = client.models.find(kind="built_in", project=3, dataset="cells")
    model = client.models.get("nuclei-1", owner="3.9")

    assert (listed.name, listed.licence, listed.available) == ("nuclei-1", "CC0-1.0", True)
    assert {("kind", "built_in"), ("project", "3"), ("dataset", "cells")} < set(api.asked[0].query)
    assert listed.serves == (Served(project="http://ls#3.9", control="cells"),)
    assert model.project is not None
    assert model.project.key == "http://ls#3.9"
    assert api.asked[1].query == [("project", "3.9")]


def test_what_is_served_is_changed(client: Client, api: ScriptedApi) -> None:
    api.on(f"POST {MODELS}/nuclei-1-p3-v1/activate", answered(ACTIVATION, 202))
    api.on(f"POST {MODELS}/rollback", answered(ACTIVATION, 202))
    api.on("GET /api/v1/activations", answered({"items": [ACTIVATION], "next": None}))

    activation = client.models.activate("nuclei-1-p3-v1", controls=["cells"])
    client.models.activate("nuclei-1-p3-v1", project=3, owner="uploads")
    client.models.rollback(3)
    client.models.rollback("3.9", to_base=True)
    (change,) = client.models.activations(project=3)

    assert activation == change
    assert change.state is ActivationState.REQUESTED
    assert change.versions == {"cells": "nuclei-1-p3-v1"}
    assert [asked.content for asked in api.asked[:4]] == [
        {"controls": ["cells"]},
        {"project": 3},
        {"project": 3},
        {"project": "3.9", "to_base": True},
    ]
    assert [asked.query for asked in api.asked[:2]] == [[], [("project", "uploads")]]


def test_models_are_put_away_and_deleted(client: Client, api: ScriptedApi) -> None:
    api.on(f"POST {MODELS}/a/archive", answered({**BUILT_IN, "kind": "archived"}))
    api.on(
        f"DELETE {MODELS}/a",
        refused(409, "request.conflict", "It is served; roll back first."),
        lambda _: Response(status_code=204),
    )

    assert client.models.archive("a").kind == "archived"
    with pytest.raises(Conflict, match="roll back"):
        client.models.delete("a")
    client.models.delete("a", owner=3)


def test_weights_are_downloaded_and_checked(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    weights = bytes(range(256)) * 1000
    digest = hashlib.sha256(weights).hexdigest()
    name = {"content-disposition": 'attachment; filename="nuclei-1.safetensors"'}
    api.on(
        f"GET {MODELS}/nuclei-1/weights",
        lambda _: Response(weights[:-1], headers={**name, "x-checksum-sha256": digest}),
        lambda _: Response(weights, headers={**name, "X-Checksum-SHA256": digest.upper()}),
    )

    with pytest.raises(ServerError, match="another checksum"):
        client.models.download("nuclei-1", tmp_path)
    assert list(tmp_path.iterdir()) == []
    written = client.models.download("nuclei-1", tmp_path)

    assert written == tmp_path / "nuclei-1.safetensors"
    assert written.read_bytes() == weights


def test_a_checkpoint_is_uploaded(client: Client, api: ScriptedApi, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    api.on(
        f"POST {MODELS}",
        answered({**BUILT_IN, "name": "mine", "kind": "uploaded"}, 201),
        refused(422, "model.checkpoint", "It lacks the key out.weight."),
    )

    model = client.models.upload(tmp_path / "mine.safetensors", name="mine", licence="MIT")

    body = api.asked[0].body
    assert (model.name, model.kind) == ("mine", "uploaded")
    assert b'name="file"; filename="mine.safetensors"' in body
    assert b'name="licence"\r\n\r\nMIT' in body
    assert b"description" not in body
    with pytest.raises(CheckpointInvalid, match="lacks the key"):
        client.models.upload(tmp_path / "mine.safetensors")
    with pytest.raises(BadRequest, match="cannot be read"):
        client.models.upload(tmp_path / "missing.pt")


def test_pictures_are_written_into_a_folder(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    api.on(f"GET {MODELS}/a/pictures", answered({"items": ["embedding.png", "cluster-1.png"]}))
    for name in ("embedding.png", "cluster-1.png"):
        api.on(f"GET {MODELS}/a/pictures/{name}", lambda asked: Response(asked.path.encode()))

    written = client.models.pictures("a", tmp_path / "new")

    assert [path.name for path in written] == ["embedding.png", "cluster-1.png"]
    assert written[1].read_bytes().endswith(b"cluster-1.png")


def test_a_package_is_exported(client: Client, api: ScriptedApi, tmp_path: Path) -> None:
    api.on(f"POST {MODELS}/nuclei-1/export", lambda _: Response(b"PK"))
    sample = np.arange(12, dtype=np.uint16).reshape(3, 4)

    written = client.models.export(
        "nuclei-1",
        tmp_path,
        model_name="Nuclei of the lab",
        description="Finds nuclei.",
        authors=[{"name": "A. Author", "affiliation": "A lab"}],
        uploader={"name": "A. Author", "email": "a@lab.example"},
        citation=[{"text": "A paper", "doi": "10.1/2"}],
        sample=sample,
    )

    content: dict[str, Any] = api.asked[0].content
    assert written == tmp_path / "model.zip"
    assert np.array_equal(decode_npy(base64.b64decode(content.pop("sample"))), sample)
    assert content == {
        "format": "bioimageio",
        "model_name": "Nuclei of the lab",
        "description": "Finds nuclei.",
        "authors": [{"name": "A. Author", "affiliation": "A lab"}],
        "uploader": {"name": "A. Author", "email": "a@lab.example"},
        "citation": [{"text": "A paper", "doi": "10.1/2"}],
    }


def test_formats_that_there_are_not_are_not_asked_for(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match="bioimageio or cellpose"):
        client.models.export("nuclei-1", tmp_path, format="onnx")

    assert api.asked == []


def test_projects_are_listed_and_exported(client: Client, api: ScriptedApi, tmp_path: Path) -> None:
    listed = {**PROJECT, "release": "nuclei-1-3fa9c2d1", "label_config_error": None}
    api.on("GET /api/v1/projects", answered({"items": [listed], "next": None}))
    api.on("GET /api/v1/projects/3/export", lambda _: Response(b"PK"))

    (project,) = client.projects.find()
    written = client.projects.export(3, tmp_path, what="predictions", format="coco")

    assert (project.id, project.release) == (3, "nuclei-1-3fa9c2d1")
    assert written == tmp_path / "predictions.zip"
    assert set(api.asked[1].query) == {("what", "predictions"), ("format", "coco")}


def test_what_is_not_there_is_not_found(client: Client, tmp_path: Path) -> None:
    for work in (
        lambda: client.models.get("no"),
        lambda: list(client.models.find()),
        lambda: client.models.download("no", tmp_path),
        lambda: client.projects.export(9, tmp_path / "x.zip"),
        lambda: client.sessions.curves("no"),
    ):
        with pytest.raises(NotFound):
            work()

    assert list(tmp_path.iterdir()) == []
