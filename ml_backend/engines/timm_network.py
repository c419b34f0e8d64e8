"""Networks of timm from files: every key, every shape, every number checked, nothing unpickled."""

from __future__ import annotations

import argparse
import pickle  # for the name of the error that torch.load raises; nothing is unpickled
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ml_backend.domain import Component
from ml_backend.engines.checkpoint_keys import is_safetensors
from ml_backend.engines.checkpoints import load_strictly, read_checkpoint
from ml_backend.engines.embedder_catalogue import FOLDER_PREFIX, HUB_PREFIX
from ml_backend.engines.timm_preprocessing import Preprocessing
from ml_backend.errors import CheckpointInvalid

LARGE_INPUT, REDUCED_INPUT = 448, 224  # pixels
"""Transformers made for images larger than the first (DINOv2: 518) get the second instead.

That costs five to ten times less, DINOv2 was mostly trained with it, and crops of objects hold no
more detail.
"""

_NESTED: Final = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where training scripts put the weights inside a file, in the order in which timm looks."""

_PREFIXES: Final = ("_orig_mod.", "module.", "_orig_mod.")  # of torch.compile and DataParallel
_CONVERTERS: Final = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn")
"""What timm's modules call their function (state, network) -> state in the present naming."""


def build_network(component: Component) -> tuple[nn.Module, Preprocessing]:
    """Return the network of a component without its weights, and how its input is made.

    Raises:
        CheckpointInvalid: the config beside the weights is none that timm can build.
        ModelError: the network takes odd images.
    """
    # timm's own ways to name a network: registered, or by the config.json in a folder
    if component.name.startswith((HUB_PREFIX, FOLDER_PREFIX)):
        name = FOLDER_PREFIX + str(Path(component.path).parent)
    else:
        name = component.name.partition("@")[0]
    try:
        network: Any = timm.create_model(name, pretrained=False, num_classes=0)
        data_config = resolve_model_data_config(network)
        if max(data_config["input_size"][1:]) > LARGE_INPUT and _takes_other_sizes(network):
            network.set_input_size((REDUCED_INPUT, REDUCED_INPUT))
            data_config = resolve_model_data_config(network, args={"img_size": REDUCED_INPUT})
        return network, Preprocessing.from_timm(data_config)
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointInvalid(
            f"timm {timm.__version__} cannot build the network of {component.name!r} ({first}); "
            "check its config.json, or name the network as ARCHITECTURE@PATH."
        ) from error


def _takes_other_sizes(network: nn.Module) -> bool:
    # a plain transformer: its table of positions is resampled when the weights are loaded, and
    # its patches must divide the new size
    edges = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    return (
        type(network) is VisionTransformer
        and edges is not None
        and all(REDUCED_INPUT % edge == 0 for edge in edges)
    )


def load_weights(network: nn.Module, path: Path) -> None:
    """Put the weights in a file into a network of timm, converted to timm's present naming.

    Its classifier is left out; every other key and shape must fit.

    Raises:
        CheckpointInvalid: the file is damaged, or belongs to another architecture.
    """
    expected = {key: value.shape for key, value in network.state_dict().items()}
    state = _without_classifier(read_state(path), network)
    if {key: value.shape for key, value in state.items()} != expected:
        state = _without_classifier(_converted(state, network, path), network)
    load_strictly(network, state, source=path.name)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a safetensors or torch file, out of a training script's wrapping.

    Raises:
        CheckpointInvalid: the file cannot be read without running code from it.
    """
    if is_safetensors(path):
        return read_checkpoint(path)
    try:
        # timm's training script saves its arguments beside the weights: plain names and values
        with torch.serialization.safe_globals([argparse.Namespace]):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointInvalid(
            f"{path} is damaged or holds more than weights ({first}); it is not loaded."
        ) from error
    if isinstance(saved, Mapping):
        saved = next((saved[key] for key in _NESTED if isinstance(saved.get(key), Mapping)), saved)
    if not isinstance(saved, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in saved.items()
    ):
        raise CheckpointInvalid(f"{path} holds no state dictionary; save `net.state_dict()`.")
    return {_bare(key): value for key, value in saved.items()}


def _bare(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _without_classifier(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    expected = network.state_dict().keys()
    prefixes = tuple(f"{name}." for name in names)
    return {
        key: value
        for key, value in state.items()
        if key in expected or not (prefixes and key.startswith(prefixes))
    }


def _converted(state: dict[str, Tensor], network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return `state` as timm would load it: other projects' keys, position tables resampled."""
    module = sys.modules[type(network).__module__]
    convert = next((getattr(module, name) for name in _CONVERTERS if hasattr(module, name)), None)
    if convert is None:
        return state
    try:
        converted: dict[str, Tensor] = convert(dict(state), network)
    except Exception as error:  # foreign keys fail anywhere in timm's many converters
        raise CheckpointInvalid(
            f"{path.name} cannot be converted to {type(network).__name__} ({error}); it is damaged "
            "or belongs to another architecture."
        ) from error
    return converted
