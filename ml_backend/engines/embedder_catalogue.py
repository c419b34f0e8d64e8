"""Which embedders there are: from a name or a path to a `Component`. Needs no torch by itself.

What a name may be, in the order in which it is read:

* `auto`: the first of `PREFERRED` whose weights are on this machine, else the descriptors;
* `shapes-1`: the built-in descriptors;
* `hf-hub:OWNER/REPOSITORY[@REVISION]`: a repository that timm has written;
* `local-dir:FOLDER`: a folder with timm's `config.json` and the weights;
* a name that timm knows, `resnet50.a1_in1k`: from the Hugging Face cache, else downloaded;
* the path of such a folder, or of a `.safetensors` file whose metadata says its `architecture`;
* `ARCHITECTURE@PATH`: weights of an architecture that timm knows, in a file or a folder.

The component's name says again how its weights are to be read (`timm_embedder.build_network`),
so a component is enough to open its embedder. Only a name that is not at hand imports timm.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ml_backend.domain import Component
from ml_backend.engines import hub
from ml_backend.engines.catalogue import AUTO, file_sha256
from ml_backend.engines.checkpoint_keys import safetensors_header
from ml_backend.errors import CheckpointInvalid, ModelNotFound

TIMM: Final = "timm"
DESCRIPTORS: Final = "descriptors"
DESCRIPTORS_LICENCE: Final = "BSD-3-Clause"
HUB_PREFIX: Final = "hf-hub:"
FOLDER_PREFIX: Final = "local-dir:"
CONFIG_FILE: Final = "config.json"
WEIGHTS_FILES: Final = ("model.safetensors", "pytorch_model.bin", "model.pth")
"""What timm calls the weights in a folder or repository, the safe format first."""

_SPDX: Final[Mapping[str, str]] = {  # from the hub's lower case to the usual writing
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
}


@dataclass(frozen=True, kw_only=True)
class PublishedNetwork:
    """A network of timm whose weights may be on this machine already."""

    name: str  # as timm knows it, with its tag; its repository is timm/NAME
    licence: str  # of the weights


PREFERRED: Final = (
    PublishedNetwork(name="vit_small_patch14_dinov2.lvd142m", licence="Apache-2.0"),
    PublishedNetwork(name="vit_small_patch14_reg4_dinov2.lvd142m", licence="Apache-2.0"),
    PublishedNetwork(name="vit_base_patch14_dinov2.lvd142m", licence="Apache-2.0"),
    PublishedNetwork(name="vit_small_patch16_224.dino", licence="Apache-2.0"),
    PublishedNetwork(name="resnet50.a1_in1k", licence="Apache-2.0"),
    PublishedNetwork(name="resnet18.a1_in1k", licence="Apache-2.0"),
)
"""What `auto` looks for: self-supervised features first, all free for any use."""


def descriptors_component() -> Component:
    """Return the built-in descriptors, which have no weights and so no path."""
    from ml_backend.engines import descriptors  # it imports OpenCV and SciPy

    return Component(
        name=descriptors.NAME,
        architecture=DESCRIPTORS,
        sha256=descriptors.embedder_sha256(),
        path="",
        licence=DESCRIPTORS_LICENCE,
    )


def default_embedder(*, cache_dir: Path | None = None) -> Component:
    """Return the first of `PREFERRED` that is in the local cache, else the descriptors.

    Reads the disk only, never the network, and imports no timm.

    Args:
        cache_dir: the Hugging Face cache; None = where that library keeps it (`HF_HUB_CACHE`).
    """
    for network in PREFERRED:
        weights = hub.cached_file(f"timm/{network.name}", WEIGHTS_FILES, cache_dir=cache_dir)
        if weights is not None:
            return _component(network.name, weights, network.licence)
    return descriptors_component()


def resolve_embedder(
    name: str,
    *,
    cache_dir: Path | None = None,
    timeout_s: float = hub.TIMEOUT_S,
    expected_sha256: str | None = None,
) -> Component:
    """Return the embedder that `name` asks for, its weights hashed.

    Args:
        name: see the module's docstring.
        cache_dir: the Hugging Face cache; None = where that library keeps it.
        timeout_s: how long the hub may stay silent.
        expected_sha256: refuse any other weights.

    Raises:
        ModelNotFound: there is no such embedder, or its weights cannot be fetched.
        CheckpointInvalid: the weights are damaged or have another hash.
    """
    if name == AUTO:
        component = default_embedder(cache_dir=cache_dir)
    elif name == (built_in := descriptors_component()).name:
        component = built_in
    else:
        component = resolve_timm(name, cache_dir=cache_dir, timeout_s=timeout_s)
    if expected_sha256 is not None and component.sha256 != expected_sha256.lower():
        raise CheckpointInvalid(
            f"The weights of {name!r} have the checksum {component.sha256[:12]}…, expected was "
            f"{expected_sha256[:12]}…; fetch the file again."
        )
    return component


def resolve_timm(
    name: str, *, cache_dir: Path | None = None, timeout_s: float = hub.TIMEOUT_S
) -> Component:
    """Return the network of timm that `name` asks for, downloaded if it must be.

    With `HF_HUB_OFFLINE` set nothing is downloaded. A hub that is out of reach is noticed within
    about `timeout_s` seconds.

    Args:
        name: see the module's docstring; not `auto`.
        cache_dir: the Hugging Face cache; None = where that library keeps it.
        timeout_s: how long the hub may stay silent.

    Raises:
        ModelNotFound: timm knows no such network, or its weights cannot be fetched.
        CheckpointInvalid: a folder or file does not say which network it holds.
    """
    if name.startswith(HUB_PREFIX):
        return _hub_component(name, cache_dir=cache_dir, timeout_s=timeout_s)
    if name.startswith(FOLDER_PREFIX):
        return _folder_component(Path(name.removeprefix(FOLDER_PREFIX)).expanduser())
    published = _published(name)
    if published is not None:
        return _published_component(name, published, cache_dir=cache_dir, timeout_s=timeout_s)
    path = Path(name).expanduser()
    if name and path.is_dir():  # an empty name would be the current folder
        return _folder_component(path)
    if path.is_file():
        return _file_component(path)
    architecture, at, place = name.partition("@")
    if at and place:
        return _explicit_component(architecture, Path(place).expanduser())
    raise ModelNotFound(
        f"There is no embedder or file {name!r}; {_suggestion(name)}, or the path of a folder with "
        f"{CONFIG_FILE} and {WEIGHTS_FILES[0]}, or ARCHITECTURE@PATH."
    )


def licence_of(pretrained_cfg: Mapping[str, Any]) -> str:
    """Return the licence of the weights that timm's `pretrained_cfg` describes, else `unknown`."""
    said = pretrained_cfg.get("license")
    if not isinstance(said, str) or not said.strip():
        return "unknown"
    return _SPDX.get(said.strip().lower(), said.strip())


def _published(name: str) -> Mapping[str, Any] | None:
    """Return what timm knows about the weights of a name, None where it knows no such name."""
    import timm  # takes seconds

    if "/" in name or "@" in name or not timm.is_model(name):
        return None
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # the architecture exists, the tag does not
        architecture = name.partition(".")[0]
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")[:6]) or "none"
        raise ModelNotFound(f"timm has no weights {name!r}; those of it are {tags}.") from None
    known: dict[str, Any] = config.to_dict() if config is not None else {}
    return {**known, "name": _tagged(name, known)}


def _tagged(name: str, config: Mapping[str, Any]) -> str:
    tag = config.get("tag")
    return f"{name}.{tag}" if tag and "." not in name else name


def _published_component(
    asked: str, config: Mapping[str, Any], *, cache_dir: Path | None, timeout_s: float
) -> Component:
    repository = config.get("hf_hub_id")
    if not repository:
        raise ModelNotFound(
            f"timm publishes no weights of {asked!r} on the Hugging Face hub; give your own as "
            f"{asked}@PATH."
        )
    own = config.get("hf_hub_filename")
    weights = hub.fetch_file(
        str(repository),
        (str(own), *WEIGHTS_FILES) if own else WEIGHTS_FILES,
        revision=None,
        cache_dir=cache_dir,
        timeout_s=timeout_s,
    )
    return _component(str(config["name"]), weights, licence_of(config))


def _hub_component(name: str, *, cache_dir: Path | None, timeout_s: float) -> Component:
    repository, _, revision = name.removeprefix(HUB_PREFIX).partition("@")
    weights = hub.fetch_file(
        repository,
        WEIGHTS_FILES,
        revision=revision or None,
        cache_dir=cache_dir,
        timeout_s=timeout_s,
    )
    # of the same commit as the weights, whatever the branch has become meanwhile
    commit = weights.parent.name
    hub.fetch_file(
        repository, (CONFIG_FILE,), revision=commit, cache_dir=cache_dir, timeout_s=timeout_s
    )
    return _component(name, weights, _licence_in(weights.parent))


def _folder_component(folder: Path) -> Component:
    if not folder.is_dir():
        raise ModelNotFound(f"There is no folder {folder} on the engine's machine.")
    return _component(
        FOLDER_PREFIX + folder.resolve().name, _weights_in(folder), _licence_in(folder)
    )


def _file_component(path: Path) -> Component:
    if path.name in WEIGHTS_FILES and (path.parent / CONFIG_FILE).is_file():
        return _folder_component(path.parent)
    architecture = ""
    if path.suffix == ".safetensors":
        architecture = safetensors_header(path)[1].get("architecture", "")
    if not architecture:
        raise CheckpointInvalid(
            f"{path.name} does not say which network of timm it holds; name it as "
            f"ARCHITECTURE@{path}, e.g. resnet50@{path}."
        )
    return _explicit_component(architecture, path)


def _explicit_component(architecture: str, place: Path) -> Component:
    import timm

    if not timm.is_model(architecture):
        raise ModelNotFound(f"timm knows no network {architecture!r}; {_suggestion(architecture)}.")
    if not place.exists():
        raise ModelNotFound(
            f"There are no weights {place} for {architecture!r} on the engine's machine."
        )
    weights = _weights_in(place) if place.is_dir() else place
    return _component(f"{architecture}@{place.stem}", weights, "unknown")


def _suggestion(name: str) -> str:
    import timm

    architecture = name.partition("@")[0].partition(".")[0]
    close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.7)
    return f"did you mean {' or '.join(close)}" if close else f"use e.g. {PREFERRED[0].name}"


def _weights_in(folder: Path) -> Path:
    for file in WEIGHTS_FILES:
        if (folder / file).is_file():
            return folder / file
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    raise ModelNotFound(
        f"{folder} holds no {WEIGHTS_FILES[0]}; save the network there with "
        "timm.models.save_for_hf(network, folder, safe_serialization=True)."
    )


def _licence_in(folder: Path) -> str:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config["architecture"], str):
            raise TypeError
    except FileNotFoundError:
        raise CheckpointInvalid(
            f"There is no {CONFIG_FILE} in {folder}; name it as ARCHITECTURE@{folder}."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointInvalid(
            f"{folder / CONFIG_FILE} is not one of timm (it must say an `architecture`); give the "
            f"architecture as ARCHITECTURE@{folder}."
        ) from None
    nested = config.get("pretrained_cfg")
    return licence_of({**config, **(nested if isinstance(nested, dict) else {})})


def _component(name: str, weights: Path, licence: str) -> Component:
    # absolute, but not resolved: in the Hugging Face cache the file is a link whose target has
    # neither a telling name nor its config beside it
    path = weights.expanduser().absolute()
    return Component(
        name=name, architecture=TIMM, sha256=file_sha256(path), path=str(path), licence=licence
    )
