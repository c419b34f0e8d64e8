"""What a trained network is called."""

from __future__ import annotations

import re

from ml_backend.datasets import is_dataset
from ml_backend.domain import ProjectKey
from ml_backend.model_files.version_folders import slug

_SERIAL = re.compile(r"-[pd]\d+-v\d+$")  # what `version_name` adds


def version_name(base: str, project: ProjectKey, number: int) -> str:
    """Return the name of a version: `nuclei-1-p3-v2` of project 3, `nuclei-1-d3-v2` of dataset 3.

    Args:
        base: Name of the network that it was started from, a base network or a version.
        project: Whose version it is, or the key of a dataset.
        number: Counts the project's versions from 1.
    """
    stem = slug(_SERIAL.sub("", base.removesuffix(".safetensors").removesuffix(".pt")))
    kind = "d" if is_dataset(project) else "p"
    return f"{stem}-{kind}{project.project_id}-v{number}"
