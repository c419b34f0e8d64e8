"""The architectures that can be served, and how the keys of a checkpoint tell them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

from ml_backend.domain import CLASSIFIER
from ml_backend.errors import CheckpointInvalid, ModelError

RESIDUAL_UNET: Final = "residual-unet"
SAM_VITL: Final = "sam-vitl"
DINO_VITL: Final = "dino-vitl"
DINO_VITB: Final = "dino-vitb"
DINO_PACKAGE: Final = "dinov3"
ADAPTER_PREFIX: Final = "lora/"  # in front of the architecture, in keys of adapters (engines.lora)


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
