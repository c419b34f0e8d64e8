"""What a model's manifest tells others: no paths, no addresses of ours, no projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ml_backend.domain import Component
from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.manifests import manifest_of

MOST_ANCESTORS: Final = 50
_TOLD: Final = (  # of a manifest; what is not named here stays here
    "architecture",
    "diameter",
    "metrics",
    "accuracy",
    "data",
    "training_data",
    "parameters",
    "segmentation",
    "libraries",
    "inference",
)
_PUBLIC: Final = ("training_data",)  # may hold addresses: they are of published data
_LONGEST_TEXT: Final = 300


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A network that a model was made from."""

    name: str
    sha256: str | None = None
    licence: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is known."""
        known = {"name": self.name, "sha256": self.sha256, "licence": self.licence}
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PackageFacts:
    """What is told of a model."""

    lineage: tuple[Ancestor, ...] = ()  # its parent first, the base network last
    told: Mapping[str, Any] = field(default_factory=dict)  # of its manifest, JSON-able

    def part(self, name: str) -> Mapping[str, Any]:
        """Return a group of facts, empty where there is none."""
        found = self.told.get(name)
        return found if isinstance(found, Mapping) else {}


def facts_of(component: Component) -> PackageFacts:
    """Return what is told of a model; next to nothing of one without a manifest."""
    manifest = _manifest(Path(component.path))
    told = {
        name: shareable(manifest[name], addresses=name in _PUBLIC)
        for name in _TOLD
        if manifest.get(name) is not None
    }
    return PackageFacts(lineage=_lineage(manifest), told=told)


def shareable(value: Any, *, addresses: bool = False) -> Any:
    """Return a JSON-able value without texts that are paths, addresses or long.

    Args:
        value: Anything JSON-able.
        addresses: Whether addresses may be told.
    """
    if isinstance(value, Mapping):
        told = {str(key): shareable(one, addresses=addresses) for key, one in value.items()}
        return {key: one for key, one in told.items() if one is not None}
    if isinstance(value, list | tuple):
        return [shareable(one, addresses=addresses) for one in value]
    if not isinstance(value, str):
        return value
    is_address = "://" in value
    is_path = not is_address and (value.startswith(("/", "~", "\\\\")) or value[1:3] == ":\\")
    if is_path or (is_address and not addresses) or len(value) > _LONGEST_TEXT:
        return None
    return value


def _lineage(manifest: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    found: list[Ancestor] = []
    while len(found) < MOST_ANCESTORS:
        kept = manifest.get("lineage")
        if isinstance(kept, list):  # of a model that came in a package
            found += [_ancestor(one, {}) for one in kept if isinstance(one, Mapping)]
            break
        parent = manifest.get("parent")
        if not isinstance(parent, Mapping) or not parent.get("name"):
            break
        path = parent.get("path")
        manifest = _manifest(Path(path)) if isinstance(path, str) else {}
        found.append(_ancestor(parent, manifest))
    return tuple(found[:MOST_ANCESTORS])


def _ancestor(said: Mapping[str, Any], manifest: Mapping[str, Any]) -> Ancestor:
    name = Path(str(said.get("name", ""))).name or "unnamed"
    sha256 = said.get("sha256")
    licence = manifest.get("licence", said.get("licence"))
    return Ancestor(
        name=name,
        sha256=sha256 if isinstance(sha256, str) else None,
        licence=licence if isinstance(licence, str) else None,
    )


def _manifest(weights: Path) -> Mapping[str, Any]:
    try:
        return manifest_of(weights)
    except CheckpointInvalid:
        return {}  # somebody's own checkpoint
