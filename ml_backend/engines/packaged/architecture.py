"""How a network is packed: the file that builds it elsewhere, and what it is built with.

The file is put together from the modules of this package that the network is made of, so that it
cannot fall behind them: their imports of each other are left out, everything else stands as it is.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from ml_backend.engines.catalogue import SAM_VITL
from ml_backend.engines.packaged.cellpose_transformer import PackagedCellposeTransformer
from ml_backend.engines.packaged.residual_unet_package import PackagedResidualUNet
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.errors import ModelError

OWN_PACKAGE: Final = "ml_backend"
_FOLDER: Final = Path(__file__).parent
_RESIDUAL_UNET: Final = (
    _FOLDER.parent / "residual_unet.py",
    _FOLDER / "frames.py",
    _FOLDER / "residual_unet_package.py",
)
_TRANSFORMER: Final = (_FOLDER / "frames.py", _FOLDER / "cellpose_transformer.py")


@dataclass(frozen=True, kw_only=True)
class PackagedArchitecture:
    """A class that builds a network, and the source of the one file that holds it."""

    callable: str
    arguments: Mapping[str, Any]  # of the class; plain numbers and lists
    source: str = field(repr=False)
    make: type[nn.Module] = field(repr=False)
    tile: int | None  # network pixels along a side; None = any size
    parameters: int  # numbers that were learned

    def build(self, state: Mapping[str, Tensor]) -> nn.Module:
        """Return the network with the weights of `state`, in evaluation mode."""
        network: nn.Module = self.make(**self.arguments)
        network.load_state_dict(dict(state), strict=True)
        return network.requires_grad_(False).eval()


def packaged_architecture(
    name: str, network: nn.Module, architecture: str, *, scale: float
) -> PackagedArchitecture:
    """Return how `network` is packed.

    Args:
        name: of the model, for messages.
        network: as `engines.networks.load_network` returns it.
        architecture: of its component.
        scale: network pixels per image pixel.

    Raises:
        ModelError: networks of this architecture cannot be packed.
    """
    learned = sum(tensor.numel() for tensor in network.parameters())
    if isinstance(network, ResidualUNet):
        return PackagedArchitecture(
            callable=PackagedResidualUNet.__name__,
            arguments={**network.config.to_json(), "scale": scale},
            source=_one_file(_RESIDUAL_UNET),
            make=PackagedResidualUNet,
            tile=None,
            parameters=learned,
        )
    if architecture == SAM_VITL:
        arguments = _transformer_arguments(network.state_dict())
        return PackagedArchitecture(
            callable=PackagedCellposeTransformer.__name__,
            arguments=arguments,
            source=_one_file(_TRANSFORMER),
            make=PackagedCellposeTransformer,
            tile=arguments["grid"] * arguments["patch"],
            parameters=learned,
        )
    raise ModelError(
        f"{name!r} is built from a package that is not on the package index (dinov3), so nobody "
        "could run it from an archive; export it as a Cellpose checkpoint instead (cellpose)."
    )


def _transformer_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    dimension, _, patch, _ = state["encoder.patch_embed.proj.weight"].shape
    terms = [key for key in state if key.endswith(".attn.rel_pos_h")]  # of the blocks, in order
    return {
        "dimension": dimension,
        "heads": dimension // state[terms[0]].shape[1],
        "hidden": state["encoder.blocks.0.mlp.lin1.weight"].shape[0],
        "distances": [len(state[key]) for key in terms],
        "grid": state["encoder.pos_embed"].shape[1],
        "patch": patch,
        "features": state["encoder.neck.0.weight"].shape[0],
    }


def _one_file(modules: tuple[Path, ...]) -> str:
    parts = [_without_own_imports(path.read_text(encoding="utf-8")) for path in modules]
    return "from __future__ import annotations\n\n" + "\n\n".join(parts)


def _without_own_imports(source: str) -> str:
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and (
            node.module == "__future__" or (node.module or "").startswith(OWN_PACKAGE)
        ):
            for number in range(node.lineno - 1, (node.end_lineno or node.lineno)):
                lines[number] = ""
    return "\n".join(lines).strip() + "\n"
