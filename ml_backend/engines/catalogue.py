"""Which networks there are: from a name or a path to a `Component`. Needs no torch.

Names are Cellpose's built-in models and our own built-in network; anything else is the path of a
checkpoint: a file of Cellpose 4 (`torch.save`d or safetensors), or a folder with
`weights.safetensors` and `manifest.json`, which is how this package keeps its versions. What is
asked for is served or refused with a sentence; nothing ever stands in for something else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ml_backend.domain import CLASSIFIER, Component
from ml_backend.engines.checkpoint_keys import checkpoint_shapes
from ml_backend.errors import CheckpointInvalid, ModelError, ModelNotFound

AUTO: Final = "auto"
RESIDUAL_UNET: Final = "residual-unet"
SAM_VITL: Final = "sam-vitl"
DINO_VITL: Final = "dino-vitl"
DINO_VITB: Final = "dino-vitb"

CELLPOSE_MODELS: Final[Mapping[str, str]] = {
    "cpsam_v2": SAM_VITL,
    "cpsam": SAM_VITL,
    "cpdino": DINO_VITL,
    "cpdino-vitb": DINO_VITB,
}
CELLPOSE_LICENCE: Final = "CC-BY-NC-4.0"  # of all published weights: their training data's
DINO_PACKAGE: Final = "dinov3"
WEIGHTS_FILE: Final = "weights.safetensors"
MANIFEST_FILE: Final = "manifest.json"
ADAPTER_PREFIX: Final = "lora/"  # in front of the architecture, in keys of adapters (engines.lora)
BUILT_IN_FOLDER: Final = Path(__file__).parent / "weights"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A network whose weights are shipped inside this package."""

    name: str
    path: Path
    sha256: str
    licence: str


def built_in_networks(folder: Path = BUILT_IN_FOLDER) -> list[BuiltIn]:
    """Return the shipped networks, the default first.

    Raises:
        CheckpointInvalid: a manifest cannot be read.
    """
    found = []
    for manifest_path in sorted(folder.glob("*.json")):
        manifest = _read_manifest(manifest_path)
        found.append(
            BuiltIn(
                name=str(manifest.get("name", manifest_path.stem)),
                path=folder / str(manifest.get("file", f"{manifest_path.stem}.safetensors")),
                sha256=str(manifest["sha256"]),
                licence=str(manifest.get("licence", "unknown")),
            )
        )
    return found


def model_names(folder: Path = BUILT_IN_FOLDER) -> list[str]:
    """Return every name that `resolve_component` knows, ours first."""
    return [network.name for network in built_in_networks(folder)] + list(CELLPOSE_MODELS)


def resolve_component(
    name: str,
    *,
    models_dir: Path,
    cuda: bool,
    expected_sha256: str | None = None,
    built_in_folder: Path = BUILT_IN_FOLDER,
) -> Component:
    """Return the network that `name` asks for, its weights hashed.

    Args:
        name: `auto`, a name of `model_names`, or the path of a checkpoint.
        models_dir: where Cellpose keeps its downloaded weights.
        cuda: whether a CUDA device is at hand; decides what `auto` means.
        expected_sha256: refuse any other weights.
        built_in_folder: where the shipped weights lie.

    Raises:
        ModelNotFound: there is no such name, or its weights are not on this machine.
        CheckpointInvalid: the file is damaged, of an unknown architecture or has another hash.
        ModelError: a package that the network needs is missing.
    """
    own = {network.name: network for network in built_in_networks(built_in_folder)}
    if name == AUTO:
        name = _automatic(list(own), cuda and (models_dir / "cpsam_v2").is_file())
    if name in own:
        network = own[name]
        component = _component(
            name, RESIDUAL_UNET, network.path, network.licence, expected=network.sha256
        )
    elif name in CELLPOSE_MODELS:
        component = _cellpose_component(name, models_dir)
    else:
        component = _local_component(name, [*own, *CELLPOSE_MODELS])
    if expected_sha256 is not None and component.sha256 != expected_sha256.lower():
        raise CheckpointInvalid(
            f"The weights of {name!r} have the checksum {component.sha256[:12]}…, expected was "
            f"{expected_sha256[:12]}…; fetch the file again."
        )
    return component


def _automatic(own: list[str], cellpose_at_hand: bool) -> str:
    if cellpose_at_hand:
        return "cpsam_v2"
    if not own:
        raise ModelNotFound(
            "This installation holds no built-in weights; install the package again, or set MODEL."
        )
    return own[0]


def _cellpose_component(name: str, models_dir: Path) -> Component:
    architecture = CELLPOSE_MODELS[name]
    require_package(architecture, name)
    path = models_dir / name
    if not path.is_file():
        raise ModelNotFound(
            f"The weights of {name!r} are not in {models_dir}; copy the file there from a machine "
            "where Cellpose has downloaded it (CELLPOSE_LOCAL_MODELS_PATH names the folder)."
        )
    return _component(name, architecture, path, CELLPOSE_LICENCE)


def _local_component(name: str, known: list[str]) -> Component:
    path = Path(name).expanduser()
    if not path.exists():
        raise ModelNotFound(
            f"There is no model or file {name!r}; use one of {', '.join(known)}, or the path of a "
            "checkpoint on the engine's machine."
        )
    if path.is_dir():
        return component_of_version(path)
    architecture = architecture_of(checkpoint_shapes(path))
    require_package(architecture, path.name)
    return _component(path.name, architecture, path.resolve(), "unknown")


def component_of_version(folder: Path) -> Component:
    """Return the network in a version folder: `weights.safetensors` and `manifest.json`.

    The manifest says `sha256`, and may say `name`, `licence` and `diameter`, the size of the
    objects that it was fine-tuned on (pixels, image frame).

    Raises:
        CheckpointInvalid: a file is missing or damaged, or the weights are others.
        ModelNotFound: the weights cannot be read.
        ModelError: a package that the network needs is missing.
    """
    manifest = _read_manifest(folder / MANIFEST_FILE)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise CheckpointInvalid(f"{folder} holds no {WEIGHTS_FILE}.")
    architecture = architecture_of(checkpoint_shapes(weights))
    name = str(manifest.get("name", folder.name))
    require_package(architecture, name)
    component = _component(
        name,
        architecture,
        weights.resolve(),
        str(manifest.get("licence", "unknown")),
        expected=str(manifest["sha256"]),
    )
    return dataclasses.replace(component, diameter=_diameter(manifest, folder))


def _diameter(manifest: Mapping[str, Any], folder: Path) -> float | None:
    said = manifest.get("diameter")
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < 1e5:
        raise CheckpointInvalid(
            f"The manifest in {folder} says the diameter {said!r}, which is no size in pixels."
        )
    return float(said)


def verify_component(component: Component) -> None:
    """Read the weights of `component` again and compare their hash.

    Raises:
        CheckpointInvalid: they are not what they were.
        ModelNotFound: they cannot be read.
    """
    _hash_of.cache_clear()  # damage to a disk changes neither size nor time
    path = Path(component.path)
    sha256 = file_sha256(path)
    if sha256 != component.sha256:
        raise CheckpointInvalid(
            f"The weights of {component.name!r} have the checksum {sha256[:12]}…, expected was "
            f"{component.sha256[:12]}…; the file {path} is damaged or was replaced."
        )


def _component(
    name: str, architecture: str, path: Path, licence: str, *, expected: str | None = None
) -> Component:
    sha256 = file_sha256(path)
    if expected is not None and sha256 != expected.lower():
        raise CheckpointInvalid(
            f"{path.name} has the checksum {sha256[:12]}…, its manifest says {expected[:12]}…; "
            "the file is damaged or was replaced."
        )
    return Component(
        name=name, architecture=architecture, sha256=sha256, path=str(path), licence=licence
    )


def manifest_of(weights: Path) -> Mapping[str, Any]:
    """Return the manifest that belongs to a weights file.

    Raises:
        CheckpointInvalid: there is none, or it cannot be read.
    """
    beside = weights.with_suffix(".json")
    return _read_manifest(beside if beside.is_file() else weights.parent / MANIFEST_FILE)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointInvalid(
            f"There is no {path.name} in {path.parent}; a model folder holds {WEIGHTS_FILE} and "
            f"{MANIFEST_FILE}."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"The manifest {path} cannot be read: {error}.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), str):
        raise CheckpointInvalid(f"The manifest {path} does not say the sha256 of its weights.")
    return manifest


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the architecture that a checkpoint with these keys and shapes belongs to.

    Raises:
        CheckpointInvalid: it is none that can be served.
    """
    adapters = next((key for key in shapes if key.startswith(ADAPTER_PREFIX)), None)
    if adapters is not None and adapters.split("/")[1] in (SAM_VITL, DINO_VITL, DINO_VITB):
        return adapters.split("/")[1]
    if "encoder.cls_token" in shapes:
        features = shapes.get("encoder.patch_embed.proj.weight", (0,))[0]
        by_features = {1024: DINO_VITL, 768: DINO_VITB}
        if features in by_features:
            return by_features[features]
    elif "encoder.pos_embed" in shapes:
        return SAM_VITL
    elif "stem.conv.weight" in shapes:
        return RESIDUAL_UNET
    elif any(key.startswith("scaling/") for key in shapes):
        return CLASSIFIER
    some = ", ".join(sorted(shapes)[:3]) or "none"
    raise CheckpointInvalid(
        f"This is no checkpoint of Cellpose 4 or of this package (its keys: {some}, …); "
        "Cellpose 3 models cannot be used."
    )


def require_package(architecture: str, name: str) -> None:
    """Check that the package which `architecture` is built from can be imported.

    Raises:
        ModelError: it is not installed.
    """
    needs_dino = architecture in (DINO_VITL, DINO_VITB)
    if needs_dino and importlib.util.find_spec(DINO_PACKAGE) is None:
        raise ModelError(
            f"{name!r} needs the Python package {DINO_PACKAGE}, which is not on the package index; "
            "install it from its GitHub repository (facebookresearch/dinov3) beside this package, "
            "or choose cpsam_v2."
        )


def file_sha256(path: Path) -> str:
    """Return the hash of a file in hex; of a file that did not change it is computed once.

    Raises:
        ModelNotFound: the file cannot be read.
    """
    try:
        facts = path.stat()
        return _hash_of(str(path), facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise ModelNotFound(f"The weights {path} cannot be read: {error.strerror}.") from error


@lru_cache(maxsize=64)
def _hash_of(path: str, _size: int, _changed_ns: int) -> str:
    # size and time are part of the cache's key, so that a replaced file is hashed again
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
