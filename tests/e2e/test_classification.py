"""Images without a label get clusters, those that people choose for teach classes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.site import CONFIGS, Site, backend_settings, faults_of, write_nuclei
from tests.shared_data import SHARED, needs_data

pytestmark = [pytest.mark.e2e, pytest.mark.data, needs_data]

PLANKTON, BLOOD = SHARED / "ndsb_plankton", SHARED / "bccd_cells"
TRAINED_WITHIN_S = 600.0  # of a busy machine; it takes seconds
ORGANISM = {"plankton": "Plankton", "detritus": "Debris"}
COMMENT = "seen by the person, with, commas"


def rows_of(folder: Path, count: int) -> list[Mapping[str, str]]:
    """Return the first `count` rows of each label in a set's index."""
    with (folder / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in rows})
    return [row for label in labels for row in [r for r in rows if r["label"] == label][:count]]


def plankton_config(labels: Sequence[str]) -> str:
    """Return our plankton config with one more control, and trained by people only."""
    choices = "".join(f'<Choice value="{label}"/>' for label in labels)
    species = f'<Choices name="species" toName="image">{choices}</Choices>'
    xml = (CONFIGS / "plankton.xml").read_text()
    return xml.replace('model_training_tasks="20"', 'model_training="manual"').replace(
        "<TextArea", species + "<TextArea"
    )


def chosen(name: str, *choices: str) -> dict[str, Any]:
    """Return the region of a choice as Label Studio's page sends it."""
    return {
        "id": name,
        "from_name": name,
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
        "value": {"choices": list(choices)},
    }


def comment() -> dict[str, Any]:
    """Return the region of a comment."""
    return {
        "id": "ta",
        "from_name": "ta",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": [COMMENT]},
    }


def choices_in(result: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Return what a prediction chooses for a control, [] for nothing."""
    return [
        choice
        for region in result
        if region["from_name"] == name
        for choice in region["value"]["choices"]
    ]


def press_start_training(site: Site, project: int) -> None:
    """Press Start Training in Label Studio."""
    (backend,) = site.user.ask("GET", "/api/ml/", params={"project": project})
    site.user.ask("POST", f"/api/ml/{backend['id']}/train")


def train(site: Site, project: int, before: str) -> str:
    """Start a training and return the version that it leads to."""
    press_start_training(site, project)
    return wait_for_another_version(site, project, before)


def wait_for_another_version(site: Site, project: int, before: str) -> str:
    """Return the version that the project shows once it is another one, and served.

    The project shows it a moment before /setup answers it; the backend's title comes last.
    """
    deadline = time.monotonic() + TRAINED_WITHIN_S
    while True:
        version = str(site.user.project(project)["model_version"])
        (backend,) = site.user.ask("GET", "/api/ml/", params={"project": project})
        if version != before and backend["title"] == version:
            return version
        assert time.monotonic() < deadline, site.backend.log.read_text()[-6000:]
        time.sleep(1)


def predictions_of(site: Site, project: int, version: str) -> dict[int, Mapping[str, Any]]:
    """Return each task's prediction of a version."""
    return {
        task: row
        for task, rows in site.predictions_by_task(project).items()
        for row in rows
        if row["model_version"] == version
    }


def balanced_accuracy(truth: Sequence[str], found: Sequence[str]) -> float:
    """Return the mean over the classes of the share that was recognised."""
    pairs = list(zip(truth, found, strict=True))
    return float(
        np.mean([np.mean([f == t for t, f in pairs if t == label]) for label in sorted(set(truth))])
    )


def test_plankton_is_clustered_first_and_classified_once_people_have_chosen(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(PLANKTON, 16)
    config = plankton_config(sorted({row["label"] for row in rows}))
    project = site.user.create_project("Plankton", config)
    site.user.upload(project, [PLANKTON / row["file"] for row in rows])
    tasks = dict(zip(site.user.task_ids(project), rows, strict=True))
    first = site.connect(project)
    site.user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, first)

    abstained = predictions_of(site, project, first)
    clustered_by = train(site, project, first)
    clustered = predictions_of(site, project, clustered_by)
    labelled = [task for index, task in enumerate(tasks) if index % 2 == 0]
    for task in labelled:
        row = tasks[task]
        site.user.submit(
            task,
            [
                chosen("species", row["label"]),
                chosen("organism_type", ORGANISM[row["group"]]),
                comment(),
            ],
        )
    learned_by = train(site, project, clustered_by)
    site.user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, learned_by)
    learned = predictions_of(site, project, learned_by)

    assert all(row["result"] == [] for row in abstained.values())
    assert len(abstained) == len(tasks)
    assert len({first, clustered_by, learned_by}) == 3
    assert "clusters" in clustered_by
    clusters = [row["cluster"] for row in clustered.values()]
    assert len(clusters) == len(tasks)
    assert None not in clusters
    assert len(set(clusters)) > 3
    shown = {
        task: region["value"]["number"]
        for task, row in clustered.items()
        for region in row["result"]
    }
    assert shown == {task: row["cluster"] for task, row in clustered.items()}
    unlabelled = [task for task in tasks if task not in labelled]
    species = [choices_in(learned[task]["result"], "species") for task in unlabelled]
    organisms = [choices_in(learned[task]["result"], "organism_type") for task in unlabelled]
    accuracy = np.mean(
        [found == [tasks[task]["label"]] for task, found in zip(unlabelled, species, strict=True)]
    )
    balanced = balanced_accuracy(
        [ORGANISM[tasks[task]["group"]] for task in unlabelled],
        [(found or [""])[0] for found in organisms],
    )
    with capsys.disabled():
        print(
            f"\nplankton, 8 labels for each of 12 classes: accuracy {accuracy:.3f}; plankton or "
            f"detritus: balanced accuracy {balanced:.3f}; {learned_by}"
        )
    assert accuracy >= 0.5  # one in twelve by chance
    assert balanced >= 0.6
    assert all(faults_of(config, row) == [] for row in learned.values())
    named = {region["from_name"] for row in learned.values() for region in row["result"]}
    assert "ta" not in named
    assert not named & {"morphology", "life_form", "shape"}  # nobody has chosen anything there
    assert all(0 <= row["score"] <= 1 for row in learned.values())
    for task in labelled[:3]:
        (annotation,) = site.user.ask("GET", f"/api/tasks/{task}/annotations/")
        (text,) = [one for one in annotation["result"] if one["from_name"] == "ta"]
        assert text["value"]["text"] == [COMMENT]


def type_command(site: Site, *words: str) -> str:
    """Type a command of ours beside the running backend; return what it prints."""
    settings = {
        **backend_settings(site.label_studio.url, site.api_key),
        "DATA_DIR": str(site.backend.data_dir),
    }
    done = subprocess.run(
        [sys.executable, "-m", "ml_backend", *words],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=TRAINED_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blood_cells_are_told_apart_after_ten_of_each(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(BLOOD, 20)
    labels = sorted({row["label"] for row in rows})
    inside = "".join(f'<Choice value="{label}"/>' for label in labels)
    config = (
        '<View model_training="manual"><Image name="image" value="$image"/>'
        f'<Choices name="cell" toName="image">{inside}</Choices></View>'
    )
    project = site.user.create_project("Blood", config)
    site.user.upload(project, [BLOOD / row["file"] for row in rows])
    tasks = dict(zip(site.user.task_ids(project), rows, strict=True))
    first = site.connect(project)
    labelled = [task for index, task in enumerate(tasks) if index % 2 == 0]
    for task in labelled:
        site.user.submit(task, [chosen("cell", tasks[task]["label"])])

    embedded = type_command(site, "embed", "--project", str(project))
    clustered = type_command(
        site, "cluster", "--project", str(project), "--output", str(tmp_path / "pictures")
    )
    version = wait_for_another_version(site, project, first)
    site.user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, version)

    learned = predictions_of(site, project, version)
    unlabelled = [task for task in tasks if task not in labelled]
    accuracy = np.mean(
        [
            choices_in(learned[task]["result"], "cell") == [tasks[task]["label"]]
            for task in unlabelled
        ]
    )
    with capsys.disabled():
        print(f"\nblood cells, 10 labels for each of 3 classes: {accuracy:.3f}; {version}")
    assert accuracy >= 0.9
    assert f"{len(tasks)} images are embedded for cell" in embedded
    assert "Promoted: cell: better" in clustered
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert "embedding.png" in pictures
    assert len([name for name in pictures if name.startswith("cluster-")]) > 2


CELLS_CONFIG = (
    '<View model_training="manual" model_epochs="1" model_samples="2" model_batch_size="2">'
    '<Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Small"/><Label value="Large"/></PolygonLabels></View>'
)


def area_of(region: Mapping[str, Any]) -> float:
    """Return the area of a polygon, in percent of the image."""
    x, y = np.asarray(region["value"]["points"]).T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 200


def test_cells_get_their_labels_once_people_have_given_some(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = site.user.create_project("Cells of two kinds", CELLS_CONFIG)
    site.user.upload(project, write_nuclei(tmp_path, 8, side=192, cells=12))
    tasks = site.user.task_ids(project)
    first = site.connect(project)
    site.user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, first)
    before = {task: row["result"] for task, row in predictions_of(site, project, first).items()}
    middle = float(np.median([area_of(region) for result in before.values() for region in result]))

    for task in tasks[:6]:
        regions = [
            {
                **region,
                "value": {
                    **region["value"],
                    "polygonlabels": ["Large" if area_of(region) > middle else "Small"],
                },
            }
            for region in before[task]
        ]
        site.user.submit(task, regions)
    version = train(site, project, first)
    site.user.retrieve_predictions(project)
    assert site.wait_until_predicted(project, version)

    after = predictions_of(site, project, version)
    found = [
        (region["value"]["polygonlabels"][0] == "Large", area_of(region) > middle)
        for task in tasks[6:]
        for region in after[task]["result"]
    ]
    share = np.mean([one == other for one, other in found])
    with capsys.disabled():
        print(f"\ncells of two sizes, told apart on images without labels: {share:.3f}; {version}")
    assert {region["value"]["polygonlabels"][0] for region in before[tasks[0]]} == {"Small"}
    assert len({is_large for is_large, _ in found}) == 2
    assert share >= 0.8
    assert faults_of(CELLS_CONFIG, after[tasks[-1]]) == []
