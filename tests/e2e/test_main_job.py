"""A person opens tasks and finds every cell outlined."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ml_backend.engines.catalogue import built_in_networks
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.labelstudio.controls import parse_label_config
from tests.e2e.site import CONFIGS, Site, faults_of, write_nuclei
from tests.shared_data import SHARED, needs_data

pytestmark = pytest.mark.e2e

POLYGONS = (CONFIGS / "polygons.xml").read_text()
STRICTER = 3.0  # logits
TWO_MODELS = "two_models.xml"  # names a model whose weights are not part of the package
CLASSES = "plankton.xml"  # claims nothing before anybody has chosen: test_classification.py


def test_opening_a_task_shows_its_cells(either_site: Site, tmp_path: Path) -> None:
    project = either_site.make_project(write_nuclei(tmp_path, 1))
    version = either_site.connect(project)
    (task,) = either_site.user.task_ids(project)

    opened = either_site.user.open_task(project, task)

    (prediction,) = opened["predictions"]
    assert prediction["model_version"] == version
    assert len(prediction["result"]) >= 3  # six nuclei were drawn, some may touch or be cut
    assert faults_of(POLYGONS, prediction) == []


def test_the_label_stream_hands_out_predicted_tasks(either_site: Site, tmp_path: Path) -> None:
    project = either_site.make_project(write_nuclei(tmp_path, 2))
    version = either_site.connect(project)

    task = either_site.user.next_task(project)

    assert [entry["model_version"] for entry in task["predictions"]] == [version]
    assert task["predictions"][0]["result"]


def test_fifty_tasks_are_predicted_at_once(either_site: Site, tmp_path: Path) -> None:
    project = either_site.make_project(write_nuclei(tmp_path, 50, side=64, cells=3))
    version = either_site.connect(project)

    answer = either_site.user.retrieve_predictions(project)
    again = either_site.user.retrieve_predictions(project)

    found = either_site.predictions_by_task(project)
    assert answer["processed_items"] == again["processed_items"] == 50
    assert [[row["model_version"] for row in rows] for rows in found.values()] == [[version]] * 50
    assert sum(bool(rows[0]["result"]) for rows in found.values()) >= 45
    assert [faults_of(POLYGONS, rows[0]) for rows in found.values()] == [[]] * 50


def test_the_first_annotation_is_linked_to_its_prediction(site: Site, tmp_path: Path) -> None:
    project = site.make_project(write_nuclei(tmp_path, 1))
    version = site.connect(project)
    task = site.user.next_task(project)
    (prediction,) = task["predictions"]

    annotation = site.user.submit(
        task["id"], prediction["result"], parent_prediction=prediction["id"]
    )

    assert annotation["parent_prediction"] == prediction["id"]
    assert site.client.project(project).model_version == version  # or scores would be missing
    (row,) = site.user.ask("GET", "/api/tasks", params={"project": project, "fields": "all"})[
        "tasks"
    ]
    assert row["predictions_score"] == pytest.approx(prediction["score"])


def test_images_in_a_folder_of_label_studio_are_predicted(either_site: Site) -> None:
    folder = either_site.files / "plate 1"
    write_nuclei(folder, 3)
    project = either_site.make_project([])
    storage = either_site.user.ask(
        "POST",
        "/api/storages/localfiles",
        json={"project": project, "path": str(folder), "use_blob_urls": True, "title": "plate"},
    )
    either_site.user.ask("POST", f"/api/storages/localfiles/{storage['id']}/sync")
    either_site.connect(project)

    either_site.user.retrieve_predictions(project)

    found = either_site.predictions_by_task(project)
    assert [len(rows) for rows in found.values()] == [1, 1, 1]
    assert all(rows[0]["result"] for rows in found.values())


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", ["dsb2018_fluo", "dsb2018_histology", "usiigaci_phase"])
def test_real_images_are_predicted(site: Site, name: str) -> None:
    images = sorted((SHARED / name / "images").glob("*.png"))[:2]
    assert images
    project = site.make_project(images)
    version = site.connect(project)

    site.user.retrieve_predictions(project)
    delivered = site.wait_until_predicted(project, version)

    found = site.predictions_by_task(project)
    assert delivered
    assert [len(rows) for rows in found.values()] == [1] * len(images)
    assert [faults_of(POLYGONS, rows[0]) for rows in found.values()] == [[]] * len(images)
    if name != "usiigaci_phase":  # a modality that the built-in network has never seen
        assert all(rows[0]["result"] for rows in found.values())


@pytest.mark.parametrize(
    "config", sorted({path.name for path in CONFIGS.glob("*.xml")} - {TWO_MODELS, CLASSES})
)
def test_every_label_config_of_ours_gets_valid_predictions(
    site: Site, tmp_path: Path, config: str
) -> None:
    image = write_stack(tmp_path) if "stack" in config else write_nuclei(tmp_path, 1)[0]
    address = f"data:;base64,{base64.b64encode(image.read_bytes()).decode()}"
    xml = (CONFIGS / config).read_text()
    project = site.make_project([], config)
    site.user.import_tasks(project, [dict.fromkeys(_value_keys(xml), address)])
    version = site.connect(project)

    site.user.retrieve_predictions(project)

    ((prediction,),) = site.predictions_by_task(project).values()
    assert prediction["model_version"] == version
    assert prediction["result"]
    assert faults_of(xml, prediction) == []


@pytest.mark.parametrize("strict_one", ["builtin", "cellpose"])
def test_each_of_two_models_feeds_its_own_control(
    site: Site, tmp_path: Path, strict_one: str
) -> None:
    strict = save_strict_network(tmp_path / "strict")
    xml = (CONFIGS / TWO_MODELS).read_text()
    other = 'model_name="cpsam_v2"' if strict_one == "cellpose" else 'model_name="nuclei-1"'
    assert xml.count(other) == 1
    xml = xml.replace(other, f'model_name="{strict}"').replace("cpsam_v2", "nuclei-1")
    config = tmp_path / TWO_MODELS
    config.write_text(xml)
    project = site.make_project(write_nuclei(tmp_path / "images", 1), str(config))
    version = site.connect(project)

    site.user.retrieve_predictions(project)
    delivered = site.wait_until_predicted(project, version)

    ((prediction,),) = site.predictions_by_task(project).values()
    assert delivered
    assert faults_of(xml, prediction) == []
    areas = {name: cell_areas(prediction["result"], name) for name in ("builtin", "cellpose")}
    by_strict = areas.pop(strict_one)
    (by_builtin,) = areas.values()
    # the same cells, of which the strict network takes the core alone
    assert len(by_builtin) >= 3
    assert len(by_strict) >= 3
    assert np.median(by_strict) < 0.9 * np.median(by_builtin)


def save_strict_network(folder: Path) -> Path:
    """Write the built-in network with a lower cell probability as a version; return its folder."""
    (network,) = built_in_networks()
    weights = load_file(str(network.path))
    with safe_open(str(network.path), framework="pt") as stored:
        metadata = stored.metadata()
    weights["head.bias"][2] -= STRICTER
    folder.mkdir()
    file = folder / "weights.safetensors"
    save_file(weights, str(file), metadata=metadata)
    manifest = {
        "name": "strict",
        "licence": network.licence,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def cell_areas(result: Sequence[Mapping[str, Any]], control: str) -> list[float]:
    """Return the areas of a control's polygons, in percent of the image."""
    areas = []
    for region in result:
        if region["from_name"] == control and region["type"] == "polygonlabels":
            x, y = np.asarray(region["value"]["points"]).T
            areas.append(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 200)
    return areas


def write_stack(folder: Path) -> Path:
    """Write a TIFF stack of five planes with three channels, nuclei in all of them."""
    picture, _ = fluorescent_nuclei(1, (128, 128), 6)
    file = folder / "stack.tif"
    stack = np.broadcast_to(picture, (5, 3, *picture.shape))
    tifffile.imwrite(file, stack, imagej=True, metadata={"axes": "ZCYX"})
    return file


def _value_keys(xml: str) -> list[str]:
    return sorted({control.value_key for control in parse_label_config(xml).controls})
