"""Checkpoints that Cellpose itself loads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from cellpose import vit
from cellpose.models import CellposeModel
from safetensors.torch import save_file
from torch import Tensor

from ml_backend.domain import Component
from ml_backend.engines.catalogue import file_sha256
from ml_backend.engines.lora import BASE_NAME, BASE_PATH, BASE_SHA256, adapter_key
from ml_backend.errors import CheckpointInvalid, ModelError
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.model_files.architectures import SAM_VITL
from ml_backend.service.cellpose_export import write_cellpose_checkpoint
from tests.docs_commands import commands
from tests.small_cpsam import SmallCpsam, save_small_cpsam

LAYER = "encoder.blocks.0.attn.qkv"


def read(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def adapters_of(base: Component, folder: Path) -> tuple[Component, Tensor]:
    """Return adapters on a layer of a network, and what they add to it."""
    torch.manual_seed(1)
    weight = read(Path(base.path))[f"{LAYER}.weight"]
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    path = folder / "adapters.safetensors"
    state = {
        adapter_key(SAM_VITL, LAYER, "down"): down,
        adapter_key(SAM_VITL, LAYER, "up"): up,
    }
    metadata = {BASE_PATH: base.path, BASE_SHA256: base.sha256, BASE_NAME: base.name}
    save_file(state, str(path), metadata=metadata)
    return replace(base, name="adapted", path=str(path), sha256=file_sha256(path)), up @ down


def test_cellpose_s_own_loader_takes_it(tmp_path: Path) -> None:
    component = replace(save_small_cpsam(tmp_path), diameter=17.0)
    target = tmp_path / "cells"

    write_cellpose_checkpoint(component, target)

    network = SmallCpsam()
    network.load_model(str(target), device=torch.device("cpu"), strict=True)
    before = read(Path(component.path))
    for key, tensor in network.state_dict().items():
        if key != "diam_labels":
            np.testing.assert_array_equal(tensor, before[key])
    assert float(network.diam_labels) == 17.0


def test_adapters_are_merged_into_their_base(tmp_path: Path) -> None:
    base = save_small_cpsam(tmp_path)
    component, added = adapters_of(base, tmp_path)
    target = tmp_path / "cells"

    write_cellpose_checkpoint(component, target)

    before, after = read(Path(base.path)), read(target)
    assert set(after) == set(before)
    torch.testing.assert_close(after[f"{LAYER}.weight"], before[f"{LAYER}.weight"] + added)


def test_half_precision_is_written_as_cellpose_reads_it(tmp_path: Path) -> None:
    component = save_small_cpsam(tmp_path)
    path = tmp_path / "half.safetensors"
    save_file(
        {key: value.bfloat16() for key, value in read(Path(component.path)).items()}, str(path)
    )
    half = replace(component, path=str(path), sha256=file_sha256(path))

    write_cellpose_checkpoint(half, tmp_path / "cells")

    assert {tensor.dtype for tensor in read(tmp_path / "cells").values()} == {torch.float32}


def test_a_network_of_our_own_is_refused(tmp_path: Path) -> None:
    component = replace(save_small_cpsam(tmp_path), architecture="residual-unet", name="nuclei-1")
    with pytest.raises(ModelError, match=r"'nuclei-1'.*BioImage\.IO"):
        write_cellpose_checkpoint(component, tmp_path / "cells")
    assert not (tmp_path / "cells").exists()


def test_weights_that_were_replaced_are_noticed(tmp_path: Path) -> None:
    component = replace(save_small_cpsam(tmp_path), sha256="00" * 32)
    with pytest.raises(CheckpointInvalid, match="changed on disk"):
        write_cellpose_checkpoint(component, tmp_path / "cells")


@pytest.mark.slow
def test_cellpose_runs_a_checkpoint_of_full_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "cpsam"
    torch.save(vit.CPSAM().state_dict(), path)
    component = Component(
        name="cpsam",
        architecture=SAM_VITL,
        sha256=file_sha256(path),
        path=str(path),
        licence="CC-BY-NC-4.0",
    )
    target = tmp_path / "cells"
    write_cellpose_checkpoint(component, target)

    model = CellposeModel(pretrained_model=str(target), use_bfloat16=False)
    written = model.net.state_dict()
    for key, tensor in read(path).items():
        np.testing.assert_array_equal(written[key], tensor)

    del model, written
    picture, _ = fluorescent_nuclei(1, (128, 128), 8)
    tifffile.imwrite(tmp_path / "image.tif", picture)
    (command,) = (one for one in commands() if one.words[:3] == ("python", "-m", "cellpose"))
    words = [word.replace("/data/cells", str(target)) for word in command.words[1:]]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "not found" not in done.stderr  # Cellpose would take its default instead
    assert (tmp_path / "image_cp_masks.tif").is_file()
