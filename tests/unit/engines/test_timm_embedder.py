"""Networks of timm as embedders: how images become their input, and weights their features."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from ml_backend.domain import Component, Pixels
from ml_backend.engines import timm_network
from ml_backend.engines.embedder_catalogue import resolve_timm
from ml_backend.engines.timm_embedder import TimmEmbedder
from ml_backend.engines.timm_network import read_state
from ml_backend.engines.timm_preprocessing import (
    SIZE_FEATURES,
    Preprocessing,
    letterbox,
    size_features,
    unit_channels,
)
from ml_backend.errors import (
    CheckpointInvalid,
    ImageError,
    ModelError,
    ModelNotFound,
    OutOfMemory,
)

pytestmark = pytest.mark.unhurried

CPU = torch.device("cpu")
BILINEAR = Image.Resampling.BILINEAR


def crops(*shapes: tuple[int, int], channels: int = 1, seed: int = 0) -> list[Pixels]:
    """Return an 8-bit image of each shape."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*shape, channels), np.uint8) for shape in shapes]


def network_of(name: str = "resnet10t", **more: Any) -> nn.Module:
    """Return a network of timm with random weights, the same every time."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name, pretrained=False, **more)
    return network


def save_shallow(name: str, folder: Path) -> nn.Module:
    """Save a transformer of one layer as timm does, and return it."""
    network = network_of(name, depth=1)
    save_for_hf(network, folder, model_args={"depth": 1}, safe_serialization=True)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small residual network as timm saves it, its classifier included."""
    path = tmp_path_factory.mktemp("timm") / "plankton"
    save_for_hf(network_of(), path, safe_serialization=True)
    return path


@pytest.fixture(scope="module")
def embedder(folder: Path) -> TimmEmbedder:
    """The network in that folder, opened."""
    return TimmEmbedder.open(resolve_timm(str(folder)), CPU)


def small_preprocessing(**more: Any) -> Preprocessing:
    """Return a preprocessing to 8 x 8 pixels that leaves values as they are."""
    plain = Preprocessing(
        channels=3, height=8, width=8, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear"
    )
    return dataclasses.replace(plain, **more)


class Means(nn.Module):
    """Answers the mean of each channel, and notes the size of every batch."""

    def __init__(self, largest_batch: int = 1000) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.largest_batch = largest_batch

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, 3, Y, X); (N, 4) out."""
        if len(images) > self.largest_batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(images))
        return torch.cat([images.mean(dim=(2, 3)), torch.ones(len(images), 1)], dim=1)


def around(network: nn.Module, **more: Any) -> TimmEmbedder:
    """Return an embedder around any network."""
    given = {"name": "means", "sha256": "ab" * 32, **more}
    return TimmEmbedder(network, small_preprocessing(), CPU, **given)


class TestEmbedding:
    def test_a_row_holds_features_of_length_one_and_then_the_size(
        self, embedder: TimmEmbedder
    ) -> None:
        rows = embedder.embed(crops((22, 40), (300, 200)))

        assert rows.shape == (2, embedder.dimension) == (2, 512 + SIZE_FEATURES)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows[:, :-SIZE_FEATURES], axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(rows[0, -SIZE_FEATURES:], size_features(22, 40))

    def test_features_are_those_that_timm_computes(
        self, embedder: TimmEmbedder, folder: Path
    ) -> None:
        image = crops((176, 176), channels=3)[0]
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        mean, std = ([[[x]] for x in timm.get_pretrained_cfg_value("resnet10t", k)] for k in
                     ("mean", "std"))  # fmt: skip
        given = (
            torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor(mean)
        ) / torch.tensor(std)
        with torch.inference_mode():
            expected = nn.functional.normalize(network(given[None]), dim=1)[0].numpy()

        row = embedder.embed([image])[0]

        np.testing.assert_allclose(row[:-SIZE_FEATURES], expected, atol=1e-5)

    def test_an_image_is_embedded_alike_alone_in_a_batch_and_on_threads(
        self, folder: Path, embedder: TimmEmbedder
    ) -> None:
        images = crops(*((20 + number, 60 - number) for number in range(18)))
        threaded = TimmEmbedder.open(resolve_timm(str(folder)), CPU, workers=3)

        together = embedder.embed(images)

        np.testing.assert_allclose(embedder.embed(images[3:4])[0], together[3], atol=1e-5)
        np.testing.assert_allclose(threaded.embed(images), together, atol=1e-6)

    def test_no_images_make_no_rows(self, embedder: TimmEmbedder) -> None:
        assert embedder.embed([]).shape == (0, embedder.dimension)

    def test_a_larger_copy_of_an_image_differs_in_its_size_only(
        self, embedder: TimmEmbedder
    ) -> None:
        small = crops((44, 44))[0]
        large = small.repeat(4, axis=0).repeat(4, axis=1)

        one, other = embedder.embed([small, large])

        same = float(one[:-SIZE_FEATURES] @ other[:-SIZE_FEATURES])
        assert same > 0.9
        assert np.linalg.norm(other[-SIZE_FEATURES:] - one[-SIZE_FEATURES:]) > 0.5

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((9, 9, 1), np.uint8),
            np.full((9, 9, 3), np.nan, np.float32),
            np.full((1, 1, 1), 7, np.uint16),
            np.ones((1, 300, 2), np.int32),
            np.ones((30, 20, 7), np.float64) * np.arange(20)[None, :, None],
            np.zeros((9, 9, 1), bool),
        ],
    )
    def test_any_image_gets_finite_numbers(self, embedder: TimmEmbedder, image: Pixels) -> None:
        assert np.isfinite(embedder.embed([image])).all()

    @pytest.mark.parametrize("shape", [(0, 5, 1), (5, 0, 1), (5, 5, 0)])
    def test_an_image_without_pixels_is_refused(
        self, embedder: TimmEmbedder, shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ImageError, match="no pixels"):
            embedder.embed([np.zeros(shape, np.uint8)])

    def test_a_batch_that_does_not_fit_is_halved(self) -> None:
        network = Means(largest_batch=3)
        images = crops(*[(8, 8)] * 10)

        rows = around(network).embed(images)

        assert max(network.batches) <= 3
        np.testing.assert_allclose(rows, around(Means()).embed(images))

    def test_an_image_that_does_not_fit_alone_is_an_error(self) -> None:
        network = Means()
        embedder = around(network)
        network.largest_batch = 0

        with pytest.raises(OutOfMemory, match="Not even one image"):
            embedder.embed(crops((8, 8)))

    def test_numbers_that_are_not_finite_are_an_error(self) -> None:
        class Broken(Means):
            def forward(self, images: Tensor) -> Tensor:
                return super().forward(images) / images.amax()

        network = Broken()
        with pytest.raises(CheckpointInvalid, match="not finite"):
            around(network)  # its first image is black

    def test_a_network_without_pooled_features_is_refused(self) -> None:
        with pytest.raises(CheckpointInvalid, match="no pooled features"):
            around(nn.Conv2d(3, 2, 1))


class TestPreprocessing:
    def test_an_image_is_letterboxed_whole_and_in_proportion(self) -> None:
        image = np.zeros((1, 10, 40), np.float32)
        image[:, 4:6, 10:30] = 1  # an object of 2 x 20 on a black ground

        boxed = letterbox(image, 80, 80, BILINEAR)

        assert boxed.shape == (1, 80, 80)
        assert boxed[0, :30].max() == boxed[0, 50:].max() == 0
        rows, columns = np.nonzero(boxed[0] > 0.5)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (4, 40)

    def test_the_padding_is_the_median_of_the_border(self) -> None:
        image = np.full((3, 10, 20), 0.25, np.float32)
        image[:, 3:7, 5:15] = 1.0
        image[:, 0, :5] = 0.0  # dirt at the border

        boxed = letterbox(image, 20, 20, BILINEAR)

        np.testing.assert_allclose(boxed[:, :5], 0.25)
        np.testing.assert_allclose(boxed[:, 15:], 0.25)

    def test_enlarging_stays_in_range(self) -> None:
        image = np.zeros((1, 4, 4), np.float32)
        image[0, 1:3, 1:3] = 1

        boxed = letterbox(image, 64, 64, Image.Resampling.BICUBIC)

        assert (boxed.min(), boxed.max()) == (0, 1)

    def test_gray_becomes_three_channels(self) -> None:
        three = unit_channels(np.array([[[0], [51]], [[102], [255]]], np.uint8), 3)

        assert three.shape == (3, 2, 2)
        np.testing.assert_allclose(three[2], [[0, 0.2], [0.4, 1]])

    def test_8_bit_values_keep_their_meaning(self) -> None:
        flat = np.full((5, 5, 1), 204, np.uint8)

        np.testing.assert_allclose(unit_channels(flat, 3), 0.8)

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32])
    def test_other_data_types_are_mapped_by_their_percentiles(self, dtype: Any) -> None:
        ramp = np.linspace(63617, 65535, 10_000).reshape(100, 100, 1).astype(dtype)

        mapped = unit_channels(ramp, 3)

        assert (mapped.min(), mapped.max()) == (0, 1)
        assert mapped.mean() == pytest.approx(0.5, abs=0.01)

    def test_two_channels_and_many_become_three(self) -> None:
        two, seven = crops((6, 6), channels=2)[0], crops((6, 6), channels=7)[0]

        np.testing.assert_allclose(unit_channels(two, 3)[2], two.mean(axis=2) / 255, atol=1e-6)
        np.testing.assert_allclose(
            unit_channels(seven, 3), seven[..., :3].transpose(2, 0, 1) / 255, atol=1e-6
        )

    def test_a_network_of_one_channel_gets_the_mean_of_three(self) -> None:
        colour = crops((8, 8), channels=3)[0]
        gray = small_preprocessing(channels=1, mean=(0.5,), std=(2.0,))

        given = gray.apply(colour)

        assert given.shape == (1, 8, 8)
        np.testing.assert_allclose(given[0], (colour.mean(axis=2) / 255 - 0.5) / 2, atol=1e-6)

    def test_mean_and_deviation_of_each_channel_are_taken_off(self) -> None:
        white = np.full((8, 8, 3), 255, np.uint8)
        given = small_preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0)).apply(white)

        np.testing.assert_allclose(given[:, 4, 4], [1.0, 1.5, 0.5])

    def test_size_features_grow_with_the_image_and_know_its_longer_edge(self) -> None:
        np.testing.assert_array_equal(size_features(64, 64), 0)
        assert (size_features(300, 200) > size_features(30, 20)).all()
        lying, standing = size_features(20, 80), size_features(80, 20)
        np.testing.assert_array_equal(lying[2:], standing[2:])
        np.testing.assert_array_equal(lying[:2], standing[1::-1])

    def test_a_network_of_other_channels_is_refused(self) -> None:
        config = {
            "input_size": (5, 8, 8),
            "mean": (0.5,),
            "std": (0.5,),
            "interpolation": "bicubic",
        }

        with pytest.raises(ModelError, match="5 channels"):
            Preprocessing.from_timm(config)


class TestWeights:
    def test_a_file_and_its_architecture_are_the_same_embedder_as_the_folder(
        self, folder: Path, embedder: TimmEmbedder
    ) -> None:
        explicit = TimmEmbedder.open(resolve_timm(f"resnet10t@{folder / 'model.safetensors'}"), CPU)

        assert explicit.sha256 == embedder.sha256
        assert explicit.name == "resnet10t@model"
        image = crops((30, 30))
        np.testing.assert_array_equal(explicit.embed(image), embedder.embed(image))

    def test_the_hash_knows_weights_and_preprocessing(
        self, folder: Path, embedder: TimmEmbedder, tmp_path: Path
    ) -> None:
        other_weights, other_mean = tmp_path / "weights", tmp_path / "mean"
        torch.manual_seed(1)
        save_for_hf(timm.create_model("resnet10t"), other_weights, safe_serialization=True)
        other_mean.mkdir()
        (other_mean / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        config = json.loads((folder / "config.json").read_text())
        config["pretrained_cfg"]["mean"] = [0.4, 0.4, 0.4]
        (other_mean / "config.json").write_text(json.dumps(config))

        hashes = {
            TimmEmbedder.open(resolve_timm(str(path)), CPU).sha256
            for path in (folder, other_weights, other_mean)
        }

        assert len(hashes) == 3
        assert embedder.sha256 in hashes

    def test_a_transformer_is_opened(self, tmp_path: Path) -> None:
        save_shallow("vit_tiny_patch16_224", tmp_path / "vit")

        embedder = TimmEmbedder.open(resolve_timm(str(tmp_path / "vit")), CPU)

        assert embedder.embed(crops((30, 50))).shape == (1, 192 + SIZE_FEATURES)

    def test_a_transformer_for_large_images_is_made_smaller(self, tmp_path: Path) -> None:
        dino = save_shallow("vit_small_patch14_dinov2", tmp_path / "dino")
        component = resolve_timm(str(tmp_path / "dino"))

        network, preprocessing = timm_network.build_network(component)
        timm_network.load_weights(network, Path(component.path))

        assert (preprocessing.height, preprocessing.width) == (224, 224)
        assert network.state_dict()["pos_embed"].shape[1] == 16 * 16 + 1
        before, after = (net.state_dict()["pos_embed"][0, 1:].mean() for net in (dino, network))
        assert float(after) == pytest.approx(float(before), abs=1e-4)

    @pytest.mark.parametrize("wrapping", ["state_dict", "model", "state_dict_ema"])
    def test_a_file_of_a_training_script_is_read(
        self, tmp_path: Path, folder: Path, embedder: TimmEmbedder, wrapping: str
    ) -> None:
        state = {
            f"module.{key}": value
            for key, value in read_state(folder / "model.safetensors").items()
        }
        saved = {"epoch": 3, "args": argparse.Namespace(lr=0.1), wrapping: state}
        torch.save(saved, tmp_path / "last.pth.tar")

        opened = TimmEmbedder.open(resolve_timm(f"resnet10t@{tmp_path / 'last.pth.tar'}"), CPU)

        image = crops((30, 30))
        np.testing.assert_array_equal(opened.embed(image), embedder.embed(image))

    def test_a_file_that_would_run_code_is_not_loaded(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (victim,)

        path = tmp_path / "model.pth"
        path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
        torch.save({"state_dict": Evil()}, tmp_path / "zip.pth")

        for evil in (path, tmp_path / "zip.pth"):
            with pytest.raises(CheckpointInvalid, match="not loaded"):
                TimmEmbedder.open(resolve_timm(f"resnet10t@{evil}"), CPU)
        assert not victim.exists()

    @pytest.mark.parametrize("architecture", ["resnet14t", "resnet18", "vit_tiny_patch16_224"])
    def test_weights_of_another_architecture_are_refused(
        self, folder: Path, architecture: str
    ) -> None:
        component = resolve_timm(f"{architecture}@{folder / 'model.safetensors'}")

        with pytest.raises(CheckpointInvalid, match=r"architecture|converted"):
            TimmEmbedder.open(component, CPU)

    def test_weights_of_a_deeper_network_are_refused(self, tmp_path: Path) -> None:
        deeper = network_of("vit_tiny_patch16_224", depth=2, num_classes=0)
        save_shallow("vit_tiny_patch16_224", tmp_path)
        save_file(deeper.state_dict(), str(tmp_path / "model.safetensors"))

        with pytest.raises(CheckpointInvalid, match=r"unexpected .*blocks\.1"):
            TimmEmbedder.open(resolve_timm(str(tmp_path)), CPU)

    def test_damaged_and_changed_files_are_refused(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        whole = (folder / "model.safetensors").read_bytes()
        path.write_bytes(whole)
        registered = resolve_timm(f"resnet10t@{path}")
        path.write_bytes(whole[:-1000])

        with pytest.raises(CheckpointInvalid, match="changed on disk"):
            TimmEmbedder.open(registered, CPU)
        with pytest.raises(CheckpointInvalid, match="no readable safetensors"):
            TimmEmbedder.open(resolve_timm(f"resnet10t@{path}"), CPU)
        path.unlink()
        with pytest.raises(ModelNotFound, match="cannot be read"):
            TimmEmbedder.open(registered, CPU)

    def test_weights_that_are_not_finite_are_refused(self, tmp_path: Path) -> None:
        network = network_of()
        state = network.state_dict()
        state["conv1.0.weight"][0] = torch.inf
        save_file(state, str(tmp_path / "model.safetensors"))

        with pytest.raises(CheckpointInvalid, match=r"not finite at conv1\.0\.weight"):
            TimmEmbedder.open(resolve_timm(f"resnet10t@{tmp_path / 'model.safetensors'}"), CPU)

    @pytest.mark.parametrize(
        "config",
        [
            {"architecture": "no_such_network"},
            {"architecture": "resnet10t", "pretrained_cfg": {"no_such_field": 1}},
            {"architecture": "resnet10t", "model_args": {"no_such_argument": 1}},
        ],
    )
    def test_a_config_that_timm_cannot_build_is_refused(
        self, folder: Path, tmp_path: Path, config: dict[str, Any]
    ) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        component: Component = resolve_timm(str(tmp_path))

        with pytest.raises(CheckpointInvalid, match="cannot build"):
            TimmEmbedder.open(component, CPU)
