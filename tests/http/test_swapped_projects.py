"""What /setup and /predict say before, during and after a swap."""

from __future__ import annotations

from dataclasses import replace

from ml_backend.domain import ProjectKey
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.releasing import Releasing
from ml_backend.store.activation_rows import Serving
from tests.http.conftest import COMPONENT, CONFIG, Backend

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)
TRAINED = replace(COMPONENT, name="cells-1-p1-v1", sha256="1" * 64, diameter=31.0)


def swap(backend: Backend) -> str:
    """Do what an engine does once the trained network is tried; return the version."""
    own = backend.own
    releasing = Releasing(
        models=own.models,
        revision=own.revision,
        parse=parse_label_config,
        components=own.components,
        versions=own.versions,
        releases=own.releases,
    )
    own.versions.request(PROJECT, components={"cells": TRAINED}, reason="a test")
    claimed = own.versions.claim(own.versions.due()[0].id, "engine", 30)
    assert claimed is not None
    release = releasing.make(PROJECT, CONFIG, changed=claimed.components).release
    serving = Serving(component=TRAINED, base_requested="auto", version_name=TRAINED.name)
    own.versions.switch(claimed, overrides={"cells": serving}, release_version=release.version)
    return release.version


def test_setup_and_predict_name_the_new_version_from_the_switch_on(backend: Backend) -> None:
    old = backend.setup().json()["model_version"]
    before = backend.predict().json()["results"][0]["model_version"]

    new = swap(backend)
    at_once = backend.predict().json()["results"][0]["model_version"]
    setup = backend.setup().json()["model_version"]

    assert before == old != new
    assert at_once == setup == new
    assert [call.release for call in backend.engine.calls] == [old, new]


def test_setup_does_not_show_a_version_that_is_being_warmed(backend: Backend) -> None:
    old = backend.setup().json()["model_version"]
    backend.own.versions.request(PROJECT, components={"cells": TRAINED}, reason="a test")

    assert backend.setup().json()["model_version"] == old


def test_a_changed_config_makes_a_new_version_of_the_trained_network(backend: Backend) -> None:
    backend.setup()
    new = swap(backend)
    changed = CONFIG.replace("<PolygonLabels", '<PolygonLabels model_min_size="40"')

    version = backend.setup(config=changed).json()["model_version"]

    release = backend.own.releases.active(PROJECT)
    assert release is not None
    assert version not in (new, "")
    assert release.components["cells"] == TRAINED


def test_a_control_that_asks_for_another_model_gets_it(backend: Backend) -> None:
    backend.setup()
    swap(backend)
    other = replace(COMPONENT, name="cpsam_v2", sha256="2" * 64)
    backend.own.components.record("cpsam_v2", other, device="cpu")
    changed = CONFIG.replace("<PolygonLabels", '<PolygonLabels model_name="cpsam_v2"')

    backend.setup(config=changed)

    release = backend.own.releases.active(PROJECT)
    assert release is not None
    assert release.components["cells"] == other
