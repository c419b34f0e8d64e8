"""A checkpoint that somebody sent: checked from the outside in, then written anew as safetensors.

Nothing in the file is trusted. Its size on disk bounds what is read of it, no code in it runs, and
its tensors must be exactly those of a network that we build ourselves before one is touched.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from ml_backend.domain import CLASSIFIER
from ml_backend.engines.checkpoint_keys import is_safetensors, safetensors_header
from ml_backend.engines.checkpoints import (
    PARALLEL_PREFIX,
    load_strictly,
    read_checkpoint,
    read_torch_checkpoint,
)
from ml_backend.engines.networks import BUILDERS
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.architectures import (
    ADAPTER_PREFIX,
    RESIDUAL_UNET,
    architecture_of,
    require_package,
)
from ml_backend.model_files.known import built_in_networks

LARGEST_HEADER: Final = 10_000_000  # bytes; a network of 305 M parameters needs 60 thousand
LARGEST_PICKLE: Final = 10_000_000  # bytes, of what describes the tensors in a file of torch
MOST_ENTRIES: Final = 20_000  # of a zip archive
LARGEST_DIAMETER: Final = 1000.0  # pixels, that a network is said to be trained for

Shapes = Mapping[str, tuple[int, ...]]


def convert_checkpoint(source: Path, target: Path, *, name: str) -> str:
    """Write the network in `source` as safetensors; return its architecture.

    Args:
        source: What somebody sent: safetensors, or written by `torch.save`.
        target: Where to write it; it says all that is needed to build the network.
        name: Of the model, for messages.

    Raises:
        CheckpointInvalid: it is damaged, too large inside, holds more than a network's tensors, or
            belongs to no network that can be served.
        ModelError: a package that the network needs is missing.
        OSError: the target cannot be written.
    """
    try:
        state, config = _read(source, name)
    except CheckpointInvalid as error:  # nobody knows the file by the path that it has here
        raise CheckpointInvalid(error.message.replace(str(source), repr(name))) from error
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    if any(key.startswith(ADAPTER_PREFIX) for key in shapes):
        raise CheckpointInvalid(
            f"{name!r} holds adapters (LoRA) and no network; export the model they belong to as a "
            "Cellpose checkpoint, and upload that."
        )
    architecture = architecture_of(shapes)
    if architecture == CLASSIFIER:
        raise CheckpointInvalid(
            f"{name!r} answers for the Choices of one project and cannot be uploaded; train it "
            "where it is needed."
        )
    require_package(architecture, name)
    metadata = {}
    if architecture == RESIDUAL_UNET:
        metadata["config"] = json.dumps(_unet_config(config, shapes, name).to_json())
    _check_against_network(architecture, state, metadata, name)
    # copies, because safetensors takes no two tensors on the same memory
    save_file(
        {key: value.detach().contiguous().clone() for key, value in state.items()},
        str(target),
        metadata=metadata,
    )
    return architecture


def _read(source: Path, name: str) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a file, and what its metadata says of how the network is built.

    Raises:
        CheckpointInvalid
    """
    try:
        is_archive = zipfile.is_zipfile(source)
        if not is_archive and is_safetensors(source):
            _, metadata = safetensors_header(source, largest=LARGEST_HEADER)
            return _without_prefix(read_checkpoint(source)), _parsed(metadata.get("config"))
        if not is_archive:
            raise CheckpointInvalid(
                f"{name!r} is neither safetensors nor a file that torch.save writes today; "
                "load it with torch and save its state dictionary again."
            )
        refuse_growing_archive(source, name)
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointInvalid(f"{name!r} cannot be read ({error}).") from error
    return read_torch_checkpoint(source), None


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(PARALLEL_PREFIX): value for key, value in state.items()}


def _parsed(config: str | None) -> Any:
    try:
        return None if config is None else json.loads(config)
    except (ValueError, RecursionError):
        return {}  # which is no config, and says so


def refuse_growing_archive(source: Path, name: str) -> None:
    """Refuse an archive that grows when it is opened, as those of torch never do.

    Args:
        source: The archive.
        name: What people call it.

    Raises:
        CheckpointInvalid: it grows, or is not what torch.save writes.
        OSError, BadZipFile: it cannot be read.
    """
    with zipfile.ZipFile(source) as archive:
        entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    is_stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not is_stored or unpacked > source.stat().st_size or len(entries) > MOST_ENTRIES:
        raise CheckpointInvalid(
            f"{name!r} is a compressed archive and no file that torch.save writes; upload the "
            "checkpoint itself."
        )
    pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
    if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
        raise CheckpointInvalid(
            f"{name!r} is no checkpoint: it should hold one data.pkl of at most "
            f"{LARGEST_PICKLE // 1_000_000} MB."
        )


def _unet_config(said: Any, shapes: Shapes, name: str) -> ResidualUNetConfig:
    """Return how a network like our own is built: as the file says, or as a built-in one.

    Raises:
        CheckpointInvalid: it says nothing that fits.
    """
    if said is None:
        for known in built_in_networks():
            known_shapes, metadata = safetensors_header(known.path)
            if known_shapes == dict(shapes) and "config" in metadata:
                return ResidualUNetConfig.from_json(json.loads(metadata["config"]))
        raise CheckpointInvalid(
            f"{name!r} does not say how its network is built and is unlike those that are built "
            "in; upload the .safetensors file, whose metadata says it (`config`)."
        )
    try:
        config = ResidualUNetConfig.from_json(said)
    except (ValueError, TypeError, OverflowError) as error:
        raise CheckpointInvalid(f"{name!r} describes an impossible network: {error}.") from error
    blocks = (*config.encoder_blocks, *config.decoder_blocks)
    # each has keys of its own: a description of more would only take memory
    fits = len(config.channels) + sum(blocks) <= len(shapes) and min(blocks) >= 0
    if not fits or not math.isfinite(config.diam_mean) or config.diam_mean > LARGEST_DIAMETER:
        raise CheckpointInvalid(
            f"{name!r} describes another network than the one whose weights it holds."
        )
    return config


def _check_against_network(
    architecture: str, state: Mapping[str, Tensor], metadata: Mapping[str, str], name: str
) -> None:
    """Check keys, shapes, kinds and numbers against the network of that architecture.

    Raises:
        CheckpointInvalid
    """
    odd = [key for key, value in state.items() if value.layout != torch.strided]
    if odd or any(value.is_quantized or value.is_complex() for value in state.values()):
        raise CheckpointInvalid(f"{name!r} holds numbers of a kind that no network here has.")
    try:
        with torch.device("meta"):  # no memory before the shapes are known to fit
            if architecture == RESIDUAL_UNET:
                config = ResidualUNetConfig.from_json(json.loads(metadata["config"]))
                network: torch.nn.Module = ResidualUNet(config)
            else:
                network = BUILDERS[architecture](Path(name))
    except (RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointInvalid(f"{name!r} describes an impossible network: {error}.") from error
    load_strictly(network, state, source=repr(name))
