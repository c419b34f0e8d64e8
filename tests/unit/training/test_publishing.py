"""What trained networks are called."""

from __future__ import annotations

from ml_backend.datasets import DATASET_ORIGIN
from ml_backend.domain import ProjectKey
from ml_backend.training.publishing import version_name

PROJECT = ProjectKey(origin="http://localhost:8080/ls", project_id=3, created_at=1_800_000_000)


def test_a_version_of_a_version_has_one_ending() -> None:
    first = version_name("nuclei-1", PROJECT, 1)

    assert first == "nuclei-1-p3-v1"
    assert version_name(first, PROJECT, 12) == "nuclei-1-p3-v12"
    assert version_name("My Net.safetensors", PROJECT, 2) == "my-net-p3-v2"


def test_a_version_of_a_dataset_is_told_from_one_of_a_project() -> None:
    dataset = ProjectKey(origin=DATASET_ORIGIN, project_id=3, created_at=1)

    assert version_name("nuclei-1", dataset, 2) == "nuclei-1-d3-v2"
    assert version_name("nuclei-1-d3-v2", PROJECT, 1) == "nuclei-1-p3-v1"
    assert version_name("nuclei-1-p7-v2", dataset, 5) == "nuclei-1-d3-v5"
