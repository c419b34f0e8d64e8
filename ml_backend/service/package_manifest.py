"""The manifest of a package: what this program wants to know when it reads the package back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_backend.engines.instances import InstanceOptions
from ml_backend.engines.packaged import masks
from ml_backend.engines.packaged.answers import steps_at
from ml_backend.model_files.hashes import file_sha256
from ml_backend.service.package_facts import PackageFacts
from ml_backend.service.package_names import OWN_WEIGHTS
from ml_backend.service.package_network import PackedNetwork


def measured_options(facts: PackageFacts, scale: float) -> InstanceOptions:
    """Return how masks were made when a network was measured, the usual way where nobody said.

    Args:
        facts: Of the network.
        scale: Network pixels per image pixel.
    """
    measured = {**facts.part("inference"), **facts.part("segmentation")}

    def said(name: str) -> float:
        value = measured.get(name)
        return value if isinstance(value, int | float) else masks.DEFAULTS[name]

    return InstanceOptions(
        flow_threshold=float(said("flow_threshold")),
        cellprob_threshold=float(said("cellprob_threshold")),
        iterations=int(measured.get("iterations") or steps_at(scale)),
        min_size=int(said("min_size")),
    )


def mask_options(options: InstanceOptions) -> dict[str, float]:
    """Return options as `masks.py` in the package takes them."""
    return {name: getattr(options, name) for name in masks.DEFAULTS}


def manifest_of_package(
    inside: Path, packed: PackedNetwork, facts: PackageFacts, licence: str
) -> dict[str, Any]:
    """Return the manifest of the files that lie in `inside`."""
    component = packed.component
    own = inside / OWN_WEIGHTS
    manifest: dict[str, Any] = {
        **facts.told,
        "name": component.name,
        "sha256": file_sha256(own) if own.is_file() else component.sha256,
        "architecture": {**facts.part("architecture"), "name": component.architecture},
        "licence": licence,
        "exported": {"name": component.name, "sha256": component.sha256},
        "lineage": [ancestor.to_json() for ancestor in facts.lineage],
        "masks": mask_options(packed.options),
    }
    if facts.lineage:
        manifest["parent"] = facts.lineage[0].to_json()
    if component.diameter is not None:
        manifest["diameter"] = component.diameter
    return manifest
