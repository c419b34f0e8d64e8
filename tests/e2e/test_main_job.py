"""A person opens tasks and finds every cell outlined."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.labelstudio.controls import parse_label_config
from tests.e2e.site import CONFIGS, Site, faults_of, write_nuclei
from tests.shared_data import SHARED, needs_data

pytestmark = pytest.mark.e2e

POLYGONS = (CONFIGS / "polygons.xml").read_text()


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


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.glob("*.xml")))
def test_every_label_config_of_ours_gets_valid_predictions(
    site: Site, tmp_path: Path, config: str
) -> None:
    if config == "two_models.xml":
        pytest.skip("it names a model whose weights are not part of the package")
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


def write_stack(folder: Path) -> Path:
    """Write a TIFF stack of five planes with three channels, nuclei in all of them."""
    picture, _ = fluorescent_nuclei(1, (128, 128), 6)
    file = folder / "stack.tif"
    stack = np.broadcast_to(picture, (5, 3, *picture.shape))
    tifffile.imwrite(file, stack, imagej=True, metadata={"axes": "ZCYX"})
    return file


def _value_keys(xml: str) -> list[str]:
    return sorted({control.value_key for control in parse_label_config(xml).controls})
