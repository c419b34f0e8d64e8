"""Names and paths become components, or a sentence; nothing stands in for something else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ml_backend.engines.catalogue import (
    CELLPOSE_LICENCE,
    CELLPOSE_MODELS,
    DINO_VITB,
    DINO_VITL,
    RESIDUAL_UNET,
    SAM_VITL,
    architecture_of,
    built_in_networks,
    file_sha256,
    model_names,
    resolve_component,
)
from ml_backend.engines.download import download_cellpose_model
from ml_backend.errors import CheckpointInvalid, ModelError, ModelNotFound
from tests.unit.engines.conftest import SaveTiny

SAM_KEYS = {"encoder.pos_embed": torch.zeros(1), "W2": torch.zeros(1)}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_the_shipped_weights_are_what_their_manifest_says() -> None:
    (network, *_) = built_in_networks()

    assert sha256(network.path) == network.sha256
    assert network.path.stat().st_size <= 8 * 1024 * 1024
    assert network.licence == "CC0-1.0"


def test_auto_is_our_own_network_without_a_gpu(models_dir: Path) -> None:
    (models_dir / "cpsam_v2").write_bytes(b"weights")

    component = resolve_component("auto", models_dir=models_dir, cuda=False)

    assert component.name == built_in_networks()[0].name
    assert component.architecture == RESIDUAL_UNET


def test_auto_is_our_own_network_where_cellpose_s_weights_are_missing(models_dir: Path) -> None:
    component = resolve_component("auto", models_dir=models_dir, cuda=True)

    assert component.name == built_in_networks()[0].name


def test_auto_is_cellpose_where_gpu_and_weights_are_at_hand(models_dir: Path) -> None:
    (models_dir / "cpsam_v2").write_bytes(b"weights")

    component = resolve_component("auto", models_dir=models_dir, cuda=True)

    assert (component.name, component.architecture) == ("cpsam_v2", SAM_VITL)
    assert component.licence == CELLPOSE_LICENCE
    assert component.sha256 == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("name", ["cpsam_v2", "cpsam"])
def test_a_cellpose_model_that_is_not_on_this_machine_is_not_found(
    name: str, models_dir: Path
) -> None:
    with pytest.raises(ModelNotFound, match=f"(?s){name}.*CELLPOSE_LOCAL_MODELS_PATH"):
        resolve_component(name, models_dir=models_dir, cuda=True)


@pytest.mark.parametrize("name", ["cpdino", "cpdino-vitb"])
def test_a_dino_model_says_which_package_it_lacks(name: str, models_dir: Path) -> None:
    (models_dir / name).write_bytes(b"weights")

    with pytest.raises(ModelError, match="not on the package index"):
        resolve_component(name, models_dir=models_dir, cuda=True)


def test_a_path_that_does_not_exist_is_not_found_and_nothing_stands_in(models_dir: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"cells\.pt.*cpsam_v2"):
        resolve_component("/nowhere/cells.pt", models_dir=models_dir, cuda=True)


def test_a_torch_checkpoint_is_recognised_by_its_keys(tmp_path: Path, models_dir: Path) -> None:
    path = tmp_path / "mine"
    torch.save({f"module.{key}": value for key, value in SAM_KEYS.items()}, path)

    component = resolve_component(str(path), models_dir=models_dir, cuda=False)

    assert component.architecture == SAM_VITL
    assert (component.name, component.licence) == ("mine", "unknown")
    assert component.sha256 == sha256(path)


def test_a_safetensors_checkpoint_is_recognised_by_its_keys(
    save_tiny: SaveTiny, models_dir: Path
) -> None:
    saved = save_tiny()

    component = resolve_component(saved.path, models_dir=models_dir, cuda=False)

    assert component.architecture == RESIDUAL_UNET
    assert component.sha256 == saved.sha256


def test_a_folder_is_one_of_our_versions(tmp_path: Path, models_dir: Path) -> None:
    folder = tmp_path / "version"
    folder.mkdir()
    save_file(SAM_KEYS, str(folder / "weights.safetensors"))
    manifest = {
        "name": "cells-7",
        "licence": "CC-BY-NC-4.0",
        "sha256": sha256(folder / "weights.safetensors"),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))

    component = resolve_component(str(folder), models_dir=models_dir, cuda=False)

    assert (component.name, component.licence) == ("cells-7", "CC-BY-NC-4.0")


def test_a_version_whose_weights_were_replaced_is_refused(tmp_path: Path, models_dir: Path) -> None:
    folder = tmp_path / "version"
    folder.mkdir()
    save_file(SAM_KEYS, str(folder / "weights.safetensors"))
    (folder / "manifest.json").write_text(json.dumps({"name": "cells-7", "sha256": "0" * 64}))

    with pytest.raises(CheckpointInvalid, match="checksum"):
        resolve_component(str(folder), models_dir=models_dir, cuda=False)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}'])
def test_a_broken_manifest_is_refused(content: str, tmp_path: Path, models_dir: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)

    with pytest.raises(CheckpointInvalid, match="manifest"):
        resolve_component(str(tmp_path), models_dir=models_dir, cuda=False)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, models_dir: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"manifest\.json"):
        resolve_component(str(tmp_path), models_dir=models_dir, cuda=False)


def test_other_weights_than_expected_are_refused(save_tiny: SaveTiny, models_dir: Path) -> None:
    saved = save_tiny()

    with pytest.raises(CheckpointInvalid, match="checksum"):
        resolve_component(saved.path, models_dir=models_dir, cuda=False, expected_sha256="0" * 64)


@pytest.mark.parametrize("name", ["cells.pt", "cells.safetensors"])
@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04 no archive", b"\xff" * 64])
def test_a_file_that_is_no_checkpoint_is_refused(
    name: str, content: bytes, tmp_path: Path, models_dir: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(CheckpointInvalid):
        resolve_component(str(path), models_dir=models_dir, cuda=False)


class RunsWhenUnpickled:
    """Would create a file if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_with_code_inside_is_refused_and_not_run(
    tmp_path: Path, models_dir: Path
) -> None:
    trap = tmp_path / "was-run"
    path = tmp_path / "cells.pt"
    torch.save({"W2": RunsWhenUnpickled(trap)}, path)

    with pytest.raises(CheckpointInvalid, match="more than weights"):
        resolve_component(str(path), models_dir=models_dir, cuda=False)

    assert not trap.exists()


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"encoder.cls_token": (1,), "encoder.patch_embed.proj.weight": (1024, 3)}, DINO_VITL),
        ({"encoder.cls_token": (1,), "encoder.patch_embed.proj.weight": (768, 3)}, DINO_VITB),
        ({"encoder.pos_embed": (1, 32, 32, 1024)}, SAM_VITL),
        ({"stem.conv.weight": (32, 3, 3, 3)}, RESIDUAL_UNET),
    ],
)
def test_keys_tell_the_architecture(shapes: dict[str, tuple[int, ...]], expected: str) -> None:
    assert architecture_of(shapes) == expected


@pytest.mark.parametrize("shapes", [{}, {"downsample.down.res_down_0.conv.weight": (32,)}])
def test_a_cellpose_3_model_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(CheckpointInvalid, match="Cellpose 3"):
        architecture_of(shapes)


def test_a_file_that_was_replaced_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = file_sha256(path)

    path.write_bytes(b"three")

    assert first == hashlib.sha256(b"one").hexdigest()
    assert file_sha256(path) == hashlib.sha256(b"three").hexdigest()


def test_a_download_that_cannot_be_reached_says_what_to_do(models_dir: Path) -> None:
    with pytest.raises(ModelNotFound, match="copy the file"):
        download_cellpose_model("cpsam", models_dir=models_dir, base_url="http://127.0.0.1:9/")

    assert list(models_dir.iterdir()) == []


def test_weights_that_are_there_are_not_downloaded_again(models_dir: Path) -> None:
    (models_dir / "cpsam").write_bytes(b"weights")

    path = download_cellpose_model("cpsam", models_dir=models_dir, base_url="http://127.0.0.1:9/")

    assert path.read_bytes() == b"weights"


def test_only_published_models_are_downloaded(models_dir: Path) -> None:
    with pytest.raises(ModelNotFound, match="none of Cellpose's"):
        download_cellpose_model("../x", models_dir=models_dir, base_url="http://127.0.0.1:9/")


def test_every_name_is_listed() -> None:
    assert set(CELLPOSE_MODELS) < set(model_names())


def test_resolving_a_name_needs_no_torch() -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from ml_backend.engines.catalogue import resolve_component\n"
        "resolve_component('auto', models_dir=Path('.'), cuda=False)\n"
        "assert 'torch' not in sys.modules and 'cellpose' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])
