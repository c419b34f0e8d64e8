"""The description of a package, `bioimageio.yaml`, in the words of BioImage.IO's model format.

The format version is an early one of 0.5, so that programs that are years old read it as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from ml_backend.service.export_request import Citation, ExportRequest
from ml_backend.service.package_facts import PackageFacts
from ml_backend.service.package_frame import PackageFrame
from ml_backend.service.package_names import (
    ARCHITECTURE,
    COVER,
    DESCRIPTION,
    MANIFEST,
    MASKS,
    OWN_CONFIG,
    OWN_WEIGHTS,
    READ_ME,
    SAMPLE_INPUT,
    SAMPLE_OUTPUT,
    TEST_INPUT,
    TEST_OUTPUT,
    TORCHSCRIPT,
    WEIGHTS,
)

FORMAT_VERSION: Final = "0.5.4"
IMAGE: Final = "image"  # id of the input
FLOWS: Final = "flows"  # id of the output
CHANNEL_NAMES: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("gray",),
    2: ("first", "second"),
    3: ("red", "green", "blue"),
}
ANSWER_NAMES: Final = ("flow_y", "flow_x", "cell_probability")
RELATIVE_TOLERANCE: Final = 1e-3
ABSOLUTE_TOLERANCE: Final = 1e-2  # of flows up to 5 long; other machines add up in another order
_SMALLEST_ANSWER: Final = 200  # times the tolerance, as BioImage.IO demands

CELLPOSE: Final = (
    Citation(
        text="Stringer, C., Wang, T., Michaelos, M. and Pachitariu, M. Cellpose: a generalist "
        "algorithm for cellular segmentation. Nature Methods 18 (2021).",
        doi="10.1038/s41592-020-01018-x",
    ),
)
CELLPOSE_SAM: Final = (
    Citation(
        text="Pachitariu, M., Rariden, M. and Stringer, C. Cellpose-SAM: superhuman "
        "generalization for cellular segmentation. bioRxiv (2025).",
        doi="10.1101/2025.04.28.651001",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a description is made from, besides the files that lie in the folder."""

    request: ExportRequest
    title: str
    description: str
    licence: str
    facts: PackageFacts
    frame: PackageFrame
    channels: int  # of the input
    largest_answer: float  # of the test output
    architecture: str  # what kind of network, for people
    callable: str  # that builds it
    arguments: Mapping[str, Any]
    parameters: int
    torch_version: str
    made_at: datetime
    tags: Sequence[str] = field(default_factory=tuple)
    citations: Sequence[Citation] = field(default_factory=tuple)  # besides the person's own


def write_description(folder: Path, about: Described) -> None:
    """Write `bioimageio.yaml` for the files that lie in `folder`."""
    text = yaml.safe_dump(describe(folder, about), sort_keys=False, allow_unicode=True, width=100)
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def describe(folder: Path, about: Described) -> dict[str, Any]:
    """Return the description of the files that lie in `folder`."""
    request = about.request
    attached = [name for name in (MASKS, MANIFEST, OWN_WEIGHTS) if (folder / name).is_file()]
    described: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": about.title,
        "description": about.description,
        "timestamp": about.made_at.isoformat(timespec="seconds"),
        "authors": [
            _without_nothing(name=one.name, affiliation=one.affiliation) for one in request.authors
        ],
        "license": about.licence,
        "cite": [
            _without_nothing(text=one.text, doi=one.doi, url=one.url)
            for one in (*request.citations, *about.citations)
        ],
        "tags": list(about.tags),
        "documentation": READ_ME,
        "covers": [COVER],
        "attachments": [_file(folder, name) for name in attached],
        "inputs": [_input(folder, about)],
        "outputs": [_output(folder, about)],
        "weights": _weights(folder, about),
        "config": _config(folder, about),
    }
    if request.uploader is not None:
        described["uploader"] = _without_nothing(
            email=request.uploader.email, name=request.uploader.name
        )
    return described


def _input(folder: Path, about: Described) -> dict[str, Any]:
    return {
        "id": IMAGE,
        "description": "A microscopy image with any range of values.",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(CHANNEL_NAMES[about.channels])},
            *(
                {"type": "space", "id": axis, "size": _size(about.frame)}  # YAML would refer back
                for axis in ("y", "x")
            ),
        ],
        "test_tensor": _file(folder, TEST_INPUT),
        "sample_tensor": _file(folder, SAMPLE_INPUT),
        "data": {"type": "float32"},
        "preprocessing": [
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
            {
                "id": "scale_range",
                "kwargs": {"axes": ["y", "x"], "min_percentile": 1.0, "max_percentile": 99.0},
            },
            {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        ],
    }


def _output(folder: Path, about: Described) -> dict[str, Any]:
    return {
        "id": FLOWS,
        "description": "5 x Y-flow, 5 x X-flow and the logit of the cell probability; masks.py "
        "makes a label image of them.",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(ANSWER_NAMES)},
            *(
                {
                    "type": "space",
                    "id": axis,
                    "size": {"tensor_id": IMAGE, "axis_id": axis},
                    "halo": about.frame.halo,
                }
                for axis in ("y", "x")
            ),
        ],
        "test_tensor": _file(folder, TEST_OUTPUT),
        "sample_tensor": _file(folder, SAMPLE_OUTPUT),
        "data": {"type": "float32"},
    }


def _size(frame: PackageFrame) -> int | dict[str, int]:
    return frame.least if frame.step == 0 else {"min": frame.least, "step": frame.step}


def _weights(folder: Path, about: Described) -> dict[str, Any]:
    weights: dict[str, Any] = {
        "pytorch_state_dict": {
            **_file(folder, WEIGHTS),
            "architecture": {
                **_file(folder, ARCHITECTURE),
                "callable": about.callable,
                "kwargs": dict(about.arguments),
            },
            "pytorch_version": about.torch_version,
        }
    }
    if (folder / TORCHSCRIPT).is_file():
        weights["torchscript"] = {
            **_file(folder, TORCHSCRIPT),
            "parent": "pytorch_state_dict",
            "pytorch_version": about.torch_version,
        }
    return weights


def _config(folder: Path, about: Described) -> dict[str, Any]:
    own = {"manifest": MANIFEST}
    if (folder / OWN_WEIGHTS).is_file():
        own["weights"] = OWN_WEIGHTS
    if about.request.collection is not None:
        own["collection"] = about.request.collection
    tolerance = min(ABSOLUTE_TOLERANCE, about.largest_answer / _SMALLEST_ANSWER)
    bioimageio: dict[str, Any] = {
        "architecture_type": about.architecture,
        "task": "instance segmentation",
        "model_parameter_count": about.parameters,
        "reproducibility_tolerance": [
            {"relative_tolerance": RELATIVE_TOLERANCE, "absolute_tolerance": tolerance}
        ],
    }
    training = _training(about.facts)
    if training:
        bioimageio["training"] = training
    return {"bioimageio": bioimageio, OWN_CONFIG: own}


def _training(facts: PackageFacts) -> dict[str, Any]:
    parameters = facts.part("parameters")
    known = {
        "training_epochs": parameters.get("n_epochs"),
        "training_batch_size": parameters.get("batch_size"),
        "initial_learning_rate": parameters.get("learning_rate"),
    }
    return {name: float(value) for name, value in known.items() if isinstance(value, int | float)}


def _file(folder: Path, name: str) -> dict[str, str]:
    with (folder / name).open("rb") as file:
        return {"source": name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _without_nothing(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
