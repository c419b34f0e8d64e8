"""A BioImage.IO package becomes weights again, ours or another's of a network that is known."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from ml_backend.domain import CLASSIFIER
from ml_backend.engines.checkpoints import read_torch_checkpoint
from ml_backend.engines.foreign_checkpoint import refuse_growing_archive
from ml_backend.engines.residual_unet import ResidualUNetConfig
from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.architectures import RESIDUAL_UNET, architecture_of
from ml_backend.model_files.hashes import file_sha256
from ml_backend.model_files.headers import safetensors_header
from ml_backend.model_files.licences import UNKNOWN
from ml_backend.model_files.manifests import WEIGHTS_FILE, diameter_of
from ml_backend.service.package_archive import PackageArchive
from ml_backend.service.package_names import MANIFEST, OWN_CONFIG, WEIGHTS

MOST_MANIFEST_BYTES: Final = 10_000_000


@dataclass(frozen=True, kw_only=True)
class UnpackedModel:
    """What was in a package."""

    weights: Path  # a safetensors file
    architecture: str
    name: str
    licence: str  # SPDX, or `unknown`
    diameter: float | None  # of the objects that it was fine-tuned on, pixels, image frame
    parent: str | None  # name of the network that it was made from
    manifest: Mapping[str, Any] = field(repr=False)  # of the weights, as version folders have it


def unpack_package(archive: Path, into: Path) -> UnpackedModel:
    """Write the weights in a package to `into`, which must be there, and return what they are.

    Nothing in the archive is run or unpickled; what is not needed stays packed.

    Raises:
        CheckpointInvalid: it is no package of a network that is known here, or it is damaged.
        OSError: the disk is full or cannot be written.
    """
    target = into / WEIGHTS_FILE
    with PackageArchive(archive) as packed:
        described = packed.description()
        if described.get("type") != "model":
            raise CheckpointInvalid("The archive describes no model; give a package of one.")
        own = _mapping(_mapping(described, "config"), OWN_CONFIG)
        kept = own.get("weights")
        if isinstance(kept, str):
            packed.extract(kept, target, sha256=_hash_of(described, kept))
        else:
            _convert(packed, described, into / WEIGHTS, target)
        manifest = _manifest(packed, own)
    sha256 = file_sha256(target)
    if isinstance(kept, str) and manifest.get("sha256", sha256) != sha256:
        raise CheckpointInvalid(
            f"The {kept} in the package is not what its {MANIFEST} says; it is damaged or was "
            "replaced."
        )
    architecture = architecture_of(safetensors_header(target)[0])
    if architecture == CLASSIFIER:
        raise CheckpointInvalid("The package holds what was learned of classes, and no network.")
    licence = described.get("license")
    whole = {
        **manifest,
        "name": str(described.get("name") or archive.stem),
        "sha256": sha256,
        "architecture": {**_mapping(manifest, "architecture"), "name": architecture},
        "licence": licence if isinstance(licence, str) else UNKNOWN,
    }
    parent = _mapping(whole, "parent").get("name")
    return UnpackedModel(
        weights=target,
        architecture=architecture,
        name=whole["name"],
        licence=whole["licence"],
        diameter=diameter_of(whole, into),
        parent=parent if isinstance(parent, str) else None,
        manifest=whole,
    )


def _convert(
    packed: PackageArchive, described: Mapping[str, Any], aside: Path, target: Path
) -> None:
    """Write the weights that torch has saved as safetensors."""
    entry = _mapping(_mapping(described, "weights"), "pytorch_state_dict")
    source = entry.get("source")
    if not isinstance(source, str):
        raise CheckpointInvalid(
            "The package has no weights as a PyTorch state dictionary; others cannot be read."
        )
    try:
        packed.extract(source, aside, sha256=_text(entry.get("sha256")))
        _require_plain(aside, source)
        state = read_torch_checkpoint(aside)
        metadata = None
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        if architecture_of(shapes) == RESIDUAL_UNET:
            metadata = {"config": json.dumps(_config(entry).to_json())}
        # memory-mapped tensors belong to the file that is removed below
        save_file(
            {key: tensor.clone().contiguous() for key, tensor in state.items()},
            str(target),
            metadata=metadata,
        )
    finally:
        aside.unlink(missing_ok=True)


def _require_plain(path: Path, name: str) -> None:
    try:
        refuse_growing_archive(path, name)
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointInvalid(
            f"The {name[:100]!r} in the package is no file that torch.save writes today ({error}); "
            "save its state dictionary again."
        ) from error


def _config(entry: Mapping[str, Any]) -> ResidualUNetConfig:
    arguments = dict(_mapping(_mapping(entry, "architecture"), "kwargs"))
    arguments.pop("scale", None)  # the manifest has it as a diameter
    try:
        return ResidualUNetConfig.from_json(arguments)
    except (ValueError, TypeError) as error:
        raise CheckpointInvalid(
            f"The package does not say how its network is built: {error}."
        ) from None


def _manifest(packed: PackageArchive, own: Mapping[str, Any]) -> Mapping[str, Any]:
    name = own.get("manifest")
    if not isinstance(name, str):
        return {}
    content = packed.read(name, most=MOST_MANIFEST_BYTES)
    try:
        manifest = json.loads(content)
    except (ValueError, UnicodeDecodeError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise CheckpointInvalid(f"The {MANIFEST} in the package is no readable JSON.")
    return manifest


def _hash_of(described: Mapping[str, Any], name: str) -> str | None:
    attachments = described.get("attachments")
    for one in attachments if isinstance(attachments, list) else ():
        if isinstance(one, dict) and one.get("source") == name:
            return _text(one.get("sha256"))
    return None


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
