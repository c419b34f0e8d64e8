"""Packages of ours and of others become weights again; what is none is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.headers import safetensors_header
from ml_backend.service.package_import import UnpackedModel, unpack_package
from tests.small_cpsam import SmallCpsam

TINY = ResidualUNetConfig(channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(1,))


def write_package(path: Path, described: Any, files: dict[str, Path | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bioimageio.yaml", yaml.safe_dump(described))
        for name, content in files.items():
            archive.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path


def sha256(content: bytes | Path) -> str:
    held = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha256(held).hexdigest()


def foreign(weights: Path, **more: Any) -> dict[str, Any]:
    """Return the description of somebody else's package."""
    entry = {"source": "weights.pt", "sha256": sha256(weights), **more}
    return {
        "type": "model",
        "name": "Their model",
        "license": "CC-BY-NC-4.0",
        "weights": {"pytorch_state_dict": entry},
    }


def ours(weights: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description and the files of a package as we write it."""
    content = json.dumps(manifest).encode()
    described = {
        "type": "model",
        "name": "Our model",
        "license": "CC0-1.0",
        "attachments": [{"source": "weights.safetensors", "sha256": sha256(weights)}],
        "config": {
            "label_studio_cell_backend": {
                "manifest": "manifest.json",
                "weights": "weights.safetensors",
            }
        },
    }
    return described, {"weights.safetensors": weights, "manifest.json": content}


@pytest.fixture
def own_weights(tmp_path: Path) -> Path:
    path = tmp_path / "own.safetensors"
    metadata = {"config": json.dumps(TINY.to_json())}
    save_file(ResidualUNet(TINY).state_dict(), str(path), metadata=metadata)
    return path


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def save_torch(folder: Path, state: Any) -> Path:
    path = folder / "weights.pt"
    torch.save(state, path)
    return path


def assert_same(model: UnpackedModel, state: dict[str, torch.Tensor]) -> None:
    found = load_file(str(model.weights))
    assert set(found) == set(state)
    for key, tensor in state.items():
        np.testing.assert_array_equal(found[key], tensor)


def test_our_own_weights_come_back_to_the_byte(
    tmp_path: Path, own_weights: Path, into: Path
) -> None:
    manifest = {
        "sha256": sha256(own_weights),
        "diameter": 31.5,
        "parent": {"name": "nuclei-1"},
        "lineage": [{"name": "nuclei-1"}],
    }
    archive = write_package(tmp_path / "a.zip", *ours(own_weights, manifest))

    model = unpack_package(archive, into)

    assert model.weights.read_bytes() == own_weights.read_bytes()
    assert model.weights.parent == into
    assert (model.name, model.licence, model.architecture) == (
        "Our model",
        "CC0-1.0",
        "residual-unet",
    )
    assert (model.diameter, model.parent) == (31.5, "nuclei-1")
    assert model.manifest["lineage"] == [{"name": "nuclei-1"}]
    assert model.manifest["sha256"] == sha256(own_weights)


def test_a_foreign_package_of_cellpose_s_network_is_read(tmp_path: Path, into: Path) -> None:
    network = SmallCpsam()
    weights = save_torch(tmp_path, network.state_dict())
    archive = write_package(tmp_path / "a.zip", foreign(weights), {"weights.pt": weights})

    model = unpack_package(archive, into)

    assert (model.architecture, model.licence, model.parent) == ("sam-vitl", "CC-BY-NC-4.0", None)
    assert_same(model, network.state_dict())
    assert sorted(path.name for path in into.iterdir()) == ["weights.safetensors"]


def test_the_torch_weights_of_our_network_say_how_it_is_built(tmp_path: Path, into: Path) -> None:
    network = ResidualUNet(TINY)
    weights = save_torch(tmp_path, network.state_dict())
    arguments = {**TINY.to_json(), "scale": 0.5}
    described = foreign(weights, architecture={"callable": "Any", "kwargs": arguments})
    archive = write_package(tmp_path / "a.zip", described, {"weights.pt": weights})

    model = unpack_package(archive, into)

    assert_same(model, network.state_dict())
    assert json.loads(safetensors_header(model.weights)[1]["config"]) == TINY.to_json()


def test_a_network_that_nobody_describes_is_refused(tmp_path: Path, into: Path) -> None:
    weights = save_torch(tmp_path, ResidualUNet(TINY).state_dict())
    archive = write_package(tmp_path / "a.zip", foreign(weights), {"weights.pt": weights})
    with pytest.raises(CheckpointInvalid, match="how its network is built"):
        unpack_package(archive, into)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_no_code_in_a_package_is_run(tmp_path: Path, into: Path) -> None:
    trap = tmp_path / "trap"
    state = {"encoder.pos_embed": Malicious(trap)}
    described = {"type": "model", "weights": {"pytorch_state_dict": {"source": "weights.pt"}}}
    for content, sentence in (
        (save_torch(tmp_path, state).read_bytes(), "not loaded"),
        (pickle.dumps(state), "no file that torch.save writes"),
    ):
        archive = write_package(tmp_path / "a.zip", described, {"weights.pt": content})
        with pytest.raises(CheckpointInvalid, match=sentence):
            unpack_package(archive, into)
    assert not trap.exists()


def test_weights_that_grow_when_they_are_opened_are_refused(tmp_path: Path, into: Path) -> None:
    plain = save_torch(tmp_path, {"encoder.pos_embed": torch.zeros(1_000_000)})
    grows = tmp_path / "grows.pt"
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(grows, "w", compression=zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    archive = write_package(tmp_path / "a.zip", foreign(grows), {"weights.pt": grows})
    with pytest.raises(CheckpointInvalid, match="compressed"):
        unpack_package(archive, into)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"type": "dataset"}, "no model"),
        ({"weights": {"onnx": {"source": "weights.onnx"}}}, "state dictionary"),
        ({"weights": None}, "state dictionary"),
        ({"weights": {"pytorch_state_dict": {"source": "gone.pt"}}}, "lacks 'gone.pt'"),
        ({"weights": {"pytorch_state_dict": {"source": "../weights.pt"}}}, "lacks"),
        (
            {"weights": {"pytorch_state_dict": {"source": "weights.pt", "sha256": "00" * 32}}},
            "checksum",
        ),
    ],
)
def test_what_is_no_package_of_a_network_is_refused(
    tmp_path: Path, into: Path, change: dict[str, Any], sentence: str
) -> None:
    weights = save_torch(tmp_path, SmallCpsam().state_dict())
    described = {**foreign(weights), **change}
    archive = write_package(tmp_path / "a.zip", described, {"weights.pt": weights})
    with pytest.raises(CheckpointInvalid, match=sentence):
        unpack_package(archive, into)


def test_weights_of_another_program_are_refused(tmp_path: Path, into: Path) -> None:
    weights = save_torch(tmp_path, {"conv.weight": torch.zeros(1)})
    archive = write_package(tmp_path / "a.zip", foreign(weights), {"weights.pt": weights})
    with pytest.raises(CheckpointInvalid, match="no checkpoint of Cellpose"):
        unpack_package(archive, into)


def test_weights_that_were_replaced_are_noticed(
    tmp_path: Path, own_weights: Path, into: Path
) -> None:
    described, files = ours(own_weights, {"sha256": "00" * 32})
    archive = write_package(tmp_path / "a.zip", described, files)
    with pytest.raises(CheckpointInvalid, match="replaced"):
        unpack_package(archive, into)


@pytest.mark.parametrize("manifest", [b"{", b"[]", b"\xff"])
def test_a_manifest_that_cannot_be_read_is_refused(
    tmp_path: Path, own_weights: Path, into: Path, manifest: bytes
) -> None:
    described, files = ours(own_weights, {})
    archive = write_package(tmp_path / "a.zip", described, {**files, "manifest.json": manifest})
    with pytest.raises(CheckpointInvalid, match=r"manifest\.json"):
        unpack_package(archive, into)


def test_an_impossible_diameter_is_refused(tmp_path: Path, own_weights: Path, into: Path) -> None:
    archive = write_package(tmp_path / "a.zip", *ours(own_weights, {"diameter": -1}))
    with pytest.raises(CheckpointInvalid, match="no size in pixels"):
        unpack_package(archive, into)
