"""Checkpoints that somebody sends: what is taken, and that nothing else is even opened."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ml_backend.engines.catalogue import RESIDUAL_UNET, SAM_VITL, built_in_networks
from ml_backend.engines.foreign_checkpoint import convert_checkpoint
from ml_backend.engines.networks import load_network
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.version_folders import component_of_file

pytestmark = pytest.mark.unhurried

CONFIG = ResidualUNetConfig(
    channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(1,), diam_mean=20.0
)


def state_of(config: ResidualUNetConfig = CONFIG) -> dict[str, Tensor]:
    """Return the weights of a small network."""
    torch.manual_seed(1)
    return ResidualUNet(config).state_dict()


def said(config: ResidualUNetConfig = CONFIG, **changed: Any) -> dict[str, str]:
    """Return metadata that says how a network is built."""
    return {"config": json.dumps({**config.to_json(), **changed})}


@pytest.fixture
def convert(tmp_path: Path) -> Callable[[Path], str]:
    """Return what converts a file, as an engine does."""

    def convert(source: Path) -> str:
        return convert_checkpoint(source, tmp_path / "out.safetensors", name="mine")

    return convert


def test_our_own_file_becomes_a_network_that_loads(
    tmp_path: Path, convert: Callable[[Path], str]
) -> None:
    save_file(state_of(), tmp_path / "in", metadata=said())

    architecture = convert(tmp_path / "in")

    path = tmp_path / "out.safetensors"
    component = component_of_file("mine", architecture, path, "unknown")
    network = load_network(component, torch.device("cpu"))
    assert architecture == RESIDUAL_UNET
    assert isinstance(network, ResidualUNet)
    assert network.config == CONFIG
    assert load_file(path).keys() == state_of().keys()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_torch_that_is_like_a_built_in_network_is_known_by_its_shapes(
    tmp_path: Path, convert: Callable[[Path], str], prefix: str
) -> None:
    state = load_file(built_in_networks()[0].path)
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "in")

    assert convert(tmp_path / "in") == RESIDUAL_UNET
    converted = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(converted[key], value) for key, value in state.items())


def test_a_file_of_cellpose_s_layout_is_taken(
    tmp_path: Path, convert: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(torch.nn.Module):
        """A stand-in with a key of Cellpose's: the real one takes over a gigabyte."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Module()
            self.encoder.pos_embed = torch.nn.Parameter(torch.zeros(1, 2))
            self.W2 = torch.nn.Parameter(torch.zeros(3, 3))

    monkeypatch.setitem(convert_checkpoint.__globals__["BUILDERS"], SAM_VITL, lambda _path: Small())
    torch.save(Small().state_dict(), tmp_path / "in")

    assert convert(tmp_path / "in") == SAM_VITL
    assert set(load_file(tmp_path / "out.safetensors")) == {"encoder.pos_embed", "W2"}


def test_half_precision_is_kept_and_views_are_whole(
    tmp_path: Path, convert: Callable[[Path], str]
) -> None:
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in state_of().items()
    }
    save_file(state, tmp_path / "in", metadata=said())

    convert(tmp_path / "in")

    assert load_file(tmp_path / "out.safetensors")["stem.conv.weight"].dtype == torch.float16


# What is refused


class _Evil:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self._path),))


def test_code_in_a_pickle_is_not_run(tmp_path: Path, convert: Callable[[Path], str]) -> None:
    trace = tmp_path / "it-ran"
    torch.save({**state_of(), "more": _Evil(trace)}, tmp_path / "zip")
    (tmp_path / "plain").write_bytes(pickle.dumps(_Evil(trace)))
    with zipfile.ZipFile(tmp_path / "hidden", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Evil(trace)))
        archive.writestr("archive/version", "3\n")

    for name in ("zip", "plain", "hidden"):
        with pytest.raises(CheckpointInvalid):
            convert(tmp_path / name)
    assert not trace.exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("format", ["safetensors", "torch"])
@pytest.mark.parametrize("kept", [0, 1, 7, 200, -1000, -1])
def test_a_truncated_file_is_refused(
    tmp_path: Path, convert: Callable[[Path], str], format: str, kept: int
) -> None:
    whole = tmp_path / "whole"
    if format == "safetensors":
        save_file(state_of(), whole, metadata=said())
    else:
        torch.save(state_of(), whole)
    (tmp_path / "in").write_bytes(whole.read_bytes()[:kept])

    with pytest.raises(CheckpointInvalid):
        convert(tmp_path / "in")


def test_an_archive_that_grows_is_not_opened(
    tmp_path: Path, convert: Callable[[Path], str]
) -> None:
    with zipfile.ZipFile(tmp_path / "in", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", bytes(50_000_000))
    assert (tmp_path / "in").stat().st_size < 100_000

    with pytest.raises(CheckpointInvalid, match="compressed archive"):
        convert(tmp_path / "in")


def test_an_archive_that_lies_about_its_sizes_is_not_opened(
    tmp_path: Path, convert: Callable[[Path], str]
) -> None:
    torch.save(state_of(), tmp_path / "in")
    content = bytearray((tmp_path / "in").read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 24 : central + 28] = (2**31).to_bytes(4, "little")  # unpacked size
    (tmp_path / "in").write_bytes(content)

    with pytest.raises(CheckpointInvalid):
        convert(tmp_path / "in")


def test_other_archives_are_refused(tmp_path: Path, convert: Callable[[Path], str]) -> None:
    with zipfile.ZipFile(tmp_path / "in", "w") as archive:
        archive.writestr("letter.txt", "hello")

    with pytest.raises(CheckpointInvalid, match=r"one data\.pkl"):
        convert(tmp_path / "in")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[" * 100_000,
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [9999999999], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 0]}}',
        b'{"__metadata__": 7}',
        b"{}",
    ],
)
def test_a_header_that_is_none_is_refused(
    tmp_path: Path, convert: Callable[[Path], str], header: bytes
) -> None:
    (tmp_path / "in").write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(CheckpointInvalid):
        convert(tmp_path / "in")


def test_a_header_that_would_fill_the_memory_is_not_read(
    tmp_path: Path, convert: Callable[[Path], str]
) -> None:
    header = b'{"a":"' + b"x" * 20_000_000 + b'"}'
    (tmp_path / "in").write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(CheckpointInvalid, match="too long"):
        convert(tmp_path / "in")


NORM = "stem.norm.weight"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"stem.conv.weight": None}, "no checkpoint of Cellpose 4"),
        ({NORM: None}, "lacks stem.norm.weight"),
        ({"more": torch.zeros(1)}, "unexpected more"),
        ({NORM: torch.zeros(5)}, "wrong shapes"),
        ({NORM: torch.full((4,), float("nan"))}, "not finite"),
        ({"lora/sam-vitl/x/down": torch.zeros(1)}, "adapters"),
        ({"stem.conv.weight": None, "scaling/mean": torch.zeros(1)}, "Choices"),
    ],
)
def test_what_is_no_network_of_ours_is_refused(
    tmp_path: Path, convert: Callable[[Path], str], changed: dict[str, Tensor | None], reason: str
) -> None:
    state = {key: value for key, value in {**state_of(), **changed}.items() if value is not None}
    save_file(state, tmp_path / "in", metadata=said())

    with pytest.raises(CheckpointInvalid, match=reason):
        convert(tmp_path / "in")


@pytest.mark.parametrize("kind", ["complex", "sparse"])
def test_numbers_of_a_kind_that_no_network_has_are_refused(
    tmp_path: Path, convert: Callable[[Path], str], kind: str
) -> None:
    state = load_file(built_in_networks()[0].path)
    weight = state[NORM]
    state[NORM] = weight.to(torch.complex64) if kind == "complex" else weight.to_sparse()
    torch.save(state, tmp_path / "in")

    with pytest.raises(CheckpointInvalid, match="of a kind that no network here has"):
        convert(tmp_path / "in")


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": [8, 8]},
        {"channels": [4, 8, 8], "encoder_blocks": [0, 1, 1], "decoder_blocks": [1, 1]},
        {"encoder_blocks": [0, 10**9]},
        {"encoder_blocks": [0, -1]},
        {"channels": [10**12, 8]},
        {"channels": [4, 10**6]},
        {"diam_mean": 1e9},
        {"diam_mean": float("nan")},
        {"diam_mean": 0},
        {"more": 1},
        {"channels": "x"},
    ],
)
def test_a_description_of_another_network_is_refused(
    tmp_path: Path, convert: Callable[[Path], str], changed: dict[str, Any]
) -> None:
    save_file(state_of(), tmp_path / "in", metadata=said(**changed))

    with pytest.raises(CheckpointInvalid):
        convert(tmp_path / "in")


def test_a_network_of_nobody_s_needs_its_description(
    tmp_path: Path, convert: Callable[[Path], str]
) -> None:
    save_file(state_of(), tmp_path / "in")

    with pytest.raises(CheckpointInvalid, match="does not say how its network is built"):
        convert(tmp_path / "in")


def test_a_tensor_that_only_seems_large_takes_no_memory(
    tmp_path: Path, convert: Callable[[Path], str]
) -> None:
    large = replace(CONFIG, channels=(4, 250), encoder_blocks=(0, 3))
    state = {
        key: torch.zeros(1).expand(10**6, 10**6) if key == "stem.conv.weight" else value
        for key, value in state_of(large).items()
    }
    torch.save(state, tmp_path / "in")  # torch keeps what is expanded as one number

    with pytest.raises(CheckpointInvalid):
        convert(tmp_path / "in")
