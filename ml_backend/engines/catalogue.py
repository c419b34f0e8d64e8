"""Which networks there are: from a name or a path to a `Component`. Needs no torch.

Names are Cellpose's built-in models and our own built-in network; anything else is the path of a
checkpoint: a file of Cellpose 4 (`torch.save`d or safetensors), or a folder with
`weights.safetensors` and `manifest.json`, which is how this package keeps its versions. What is
asked for is served or refused with a sentence; nothing ever stands in for something else.
"""

from __future__ import annotations

from pathlib import Path

from ml_backend.domain import Component
from ml_backend.engines.checkpoint_keys import checkpoint_shapes
from ml_backend.errors import CheckpointInvalid, ModelNotFound
from ml_backend.model_files.architectures import (
    ADAPTER_PREFIX,
    DINO_PACKAGE,
    DINO_VITB,
    DINO_VITL,
    RESIDUAL_UNET,
    SAM_VITL,
    architecture_of,
    require_package,
)
from ml_backend.model_files.hashes import file_sha256, forget_hashes
from ml_backend.model_files.known import (
    AUTO,
    BUILT_IN_FOLDER,
    CELLPOSE_LICENCE,
    CELLPOSE_MODELS,
    BuiltIn,
    built_in_networks,
    model_names,
)
from ml_backend.model_files.manifests import MANIFEST_FILE, WEIGHTS_FILE, manifest_of
from ml_backend.model_files.version_folders import component_of_file, component_of_version

__all__ = [
    "ADAPTER_PREFIX",
    "AUTO",
    "BUILT_IN_FOLDER",
    "CELLPOSE_LICENCE",
    "CELLPOSE_MODELS",
    "DINO_PACKAGE",
    "DINO_VITB",
    "DINO_VITL",
    "MANIFEST_FILE",
    "RESIDUAL_UNET",
    "SAM_VITL",
    "WEIGHTS_FILE",
    "BuiltIn",
    "architecture_of",
    "built_in_networks",
    "component_of_version",
    "file_sha256",
    "manifest_of",
    "model_names",
    "require_package",
    "resolve_component",
    "verify_component",
]


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
        component = component_of_file(
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
    return component_of_file(name, architecture, path, CELLPOSE_LICENCE)


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
    return component_of_file(path.name, architecture, path.resolve(), "unknown")


def verify_component(component: Component) -> None:
    """Read the weights of `component` again and compare their hash.

    Raises:
        CheckpointInvalid: they are not what they were.
        ModelNotFound: they cannot be read.
    """
    forget_hashes()  # damage to a disk changes neither size nor time
    path = Path(component.path)
    sha256 = file_sha256(path)
    if sha256 != component.sha256:
        raise CheckpointInvalid(
            f"The weights of {component.name!r} have the checksum {sha256[:12]}…, expected was "
            f"{component.sha256[:12]}…; the file {path} is damaged or was replaced."
        )
