"""Which embedder a name means, where its weights are, and what opens it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from timm.models import save_for_hf

from ml_backend.domain import Component
from ml_backend.engines import descriptors
from ml_backend.engines.embedder_catalogue import (
    DESCRIPTORS,
    PREFERRED,
    TIMM,
    default_embedder,
    licence_of,
    resolve_embedder,
    resolve_timm,
)
from ml_backend.engines.embedding import DescriptorEmbedder, open_embedder
from ml_backend.errors import CheckpointInvalid, ModelError, ModelNotFound

pytestmark = pytest.mark.unhurried

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub cannot be reached."""

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)


def cached(cache: Path, repository: str, files: dict[str, bytes], commit: str = "c" * 40) -> Path:
    """Put files into a Hugging Face cache as its library does: links to files named by hash."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for place in (folder / "refs", folder / "blobs", snapshot):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    for name, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    return snapshot


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small network as timm saves it."""
    folder = tmp_path_factory.mktemp("saved")
    save_for_hf(timm.create_model("resnet10t"), folder, safe_serialization=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


class TestDefault:
    def test_without_any_weights_it_is_the_descriptors(self, tmp_path: Path) -> None:
        component = default_embedder(cache_dir=tmp_path)

        assert component == Component(
            name=descriptors.NAME,
            architecture=DESCRIPTORS,
            sha256=descriptors.embedder_sha256(),
            path="",
            licence="BSD-3-Clause",
        )

    def test_it_is_the_first_whose_weights_are_in_the_cache(self, tmp_path: Path) -> None:
        for network in (PREFERRED[-1], PREFERRED[1]):
            cached(tmp_path, f"timm/{network.name}", {"model.safetensors": network.name.encode()})

        component = default_embedder(cache_dir=tmp_path)

        assert (component.name, component.architecture) == (PREFERRED[1].name, TIMM)
        assert component.licence == "Apache-2.0"
        assert component.sha256 == hashlib.sha256(PREFERRED[1].name.encode()).hexdigest()
        assert component == resolve_embedder("auto", cache_dir=tmp_path)

    def test_what_it_prefers_is_known_to_timm_under_that_licence(self) -> None:
        for network in PREFERRED:
            config = timm.get_pretrained_cfg(network.name).to_dict()
            assert config["hf_hub_id"] == f"timm/{network.name}"
            assert licence_of(config) == network.licence

    def test_it_is_found_without_timm_and_torch(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from ml_backend.engines.embedder_catalogue import PREFERRED, default_embedder\n"
            "found = default_embedder(cache_dir=Path(sys.argv[1]))\n"
            "assert found.name == PREFERRED[0].name\n"
            "assert not {'torch', 'timm'} & set(sys.modules), 'imported'\n"
        )
        cached(tmp_path, f"timm/{PREFERRED[0].name}", {"model.safetensors": b"weights"})

        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


class TestHub:
    def test_a_name_of_timm_is_found_in_the_cache_and_opened(
        self, tmp_path: Path, saved: dict[str, bytes]
    ) -> None:
        cached(
            tmp_path, "timm/resnet10t.c3_in1k", {"model.safetensors": saved["model.safetensors"]}
        )

        component = resolve_timm("resnet10t.c3_in1k", cache_dir=tmp_path)

        assert component.name == "resnet10t.c3_in1k"
        assert component.licence == "Apache-2.0"
        assert component == resolve_timm("resnet10t", cache_dir=tmp_path)  # its default tag
        embedder = open_embedder(component, CPU)
        assert embedder.embed([np.zeros((9, 9, 1), np.uint8)]).shape == (1, embedder.dimension)

    def test_a_repository_is_found_in_the_cache_with_its_config(
        self, tmp_path: Path, saved: dict[str, bytes]
    ) -> None:
        cached(tmp_path, "lab/plankton", saved)

        component = resolve_timm("hf-hub:lab/plankton", cache_dir=tmp_path)

        assert (component.name, component.licence) == ("hf-hub:lab/plankton", "Apache-2.0")
        assert open_embedder(component, CPU).dimension == 516

    def test_a_revision_of_a_repository_is_found(
        self, tmp_path: Path, saved: dict[str, bytes]
    ) -> None:
        old = cached(tmp_path, "lab/plankton", saved, commit="a" * 40)
        cached(tmp_path, "lab/plankton", {**saved, "model.safetensors": b"new"}, commit="b" * 40)

        component = resolve_timm(f"hf-hub:lab/plankton@{'a' * 40}", cache_dir=tmp_path)

        assert component.path == str(old / "model.safetensors")

    @pytest.mark.parametrize("name", ["resnet10t.c3_in1k", "hf-hub:lab/plankton"])
    def test_offline_it_says_at_once_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

        with pytest.raises(ModelNotFound, match=r"HF_HUB_OFFLINE is set\. .*hf download .*/"):
            resolve_timm(name, cache_dir=tmp_path)

    def test_without_a_network_it_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound, match=r"could not be reached .*hf download timm/resnet"):
            resolve_timm("resnet10t", cache_dir=tmp_path)

    def test_without_a_network_it_does_not_hang(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # a documentation address that no packet comes back from, or that has no route
        monkeypatch.setattr(constants, "ENDPOINT", "http://192.0.2.1")
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            "http://192.0.2.1/{repo_id}/resolve/{revision}/{filename}",
        )
        started = time.monotonic()

        with pytest.raises(ModelNotFound, match="could not be reached"):
            resolve_timm("resnet10t", cache_dir=tmp_path, timeout_s=1.0)
        assert time.monotonic() - started < 15

    def test_the_safe_format_is_downloaded_first_and_another_where_there_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def metadata(url: str, **_: Any) -> None:
            if url.endswith(".safetensors"):
                raise EntryNotFoundError("404")

        def download(_: str, file: str, **__: Any) -> str:
            path = tmp_path / file
            path.write_bytes(b"weights")
            return str(path)

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

        component = resolve_timm("resnet10t", cache_dir=tmp_path / "cache")

        assert component.path == str(tmp_path / "pytorch_model.bin")

    @pytest.mark.parametrize("repository", ["", "lab", "a/b/c", "lab/bad name", "../x"])
    def test_an_impossible_repository_is_refused(self, tmp_path: Path, repository: str) -> None:
        with pytest.raises(ModelNotFound):
            resolve_timm(f"hf-hub:{repository}", cache_dir=tmp_path)

    def test_a_network_that_the_hub_lacks_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound, match="publishes no weights"):
            resolve_timm("legacy_seresnet18", cache_dir=tmp_path)


class TestLocal:
    def test_a_folder_says_itself_what_it_holds(
        self, tmp_path: Path, saved: dict[str, bytes]
    ) -> None:
        folder = written(tmp_path / "fine@tuned", saved)

        for name in (str(folder), f"local-dir:{folder}", str(folder / "model.safetensors")):
            component = resolve_timm(name)
            assert component.name == "local-dir:fine@tuned"
            assert component.path == str(folder / "model.safetensors")
            assert component.licence == "Apache-2.0"

    def test_a_file_may_name_its_architecture_in_its_metadata(self, tmp_path: Path) -> None:
        path = tmp_path / "best.safetensors"
        state = timm.create_model("resnet10t").state_dict()
        save_file(state, str(path), metadata={"architecture": "resnet10t"})

        component = resolve_timm(str(path))

        assert (component.name, component.licence) == ("resnet10t@best", "unknown")
        assert open_embedder(component, CPU).name == "resnet10t@best"

    def test_the_architecture_may_be_given_for_a_file_or_a_folder(
        self, tmp_path: Path, saved: dict[str, bytes]
    ) -> None:
        folder = written(tmp_path / "run", {"best.safetensors": saved["model.safetensors"]})

        by_file = resolve_timm(f"resnet10t@{folder / 'best.safetensors'}")
        by_folder = resolve_timm(f"resnet10t.c3_in1k@{folder}")

        assert by_file.path == by_folder.path
        assert (by_file.name, by_folder.name) == ("resnet10t@best", "resnet10t.c3_in1k@run")

    def test_a_file_that_does_not_say_what_it_holds_is_refused(
        self, tmp_path: Path, saved: dict[str, bytes]
    ) -> None:
        folder = written(tmp_path / "run", {"best.safetensors": saved["model.safetensors"]})

        for name in (folder / "best.safetensors", folder):
            with pytest.raises(CheckpointInvalid, match="ARCHITECTURE@"):
                resolve_timm(str(name))

    @pytest.mark.parametrize("config", [b"{", b"[]", b"{}", json.dumps({"architectures": ["x"]})])
    def test_a_config_of_another_library_is_refused(
        self, tmp_path: Path, saved: dict[str, bytes], config: bytes | str
    ) -> None:
        content = config.encode() if isinstance(config, str) else config
        folder = written(tmp_path / "run", {**saved, "config.json": content})

        with pytest.raises(CheckpointInvalid, match="not one of timm"):
            resolve_timm(str(folder))

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("resnet50.no_such_tag", "those of it are resnet50"),
            ("resnett50", "did you mean resnet50"),
            ("nonsense", "There is no embedder"),
            ("nonsense@/nowhere", "knows no network"),
            ("resnet50@/nowhere", "There are no weights"),
            ("local-dir:/nowhere", "There is no folder"),
            ("", "There is no embedder"),
        ],
    )
    def test_what_is_not_there_is_refused_with_a_hint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelNotFound, match=sentence):
            resolve_timm(name, cache_dir=tmp_path)

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound, match="save_for_hf"):
            resolve_timm(str(tmp_path))

    def test_other_weights_than_expected_are_refused(
        self, tmp_path: Path, saved: dict[str, bytes]
    ) -> None:
        folder = written(tmp_path / "run", saved)
        sha256 = hashlib.sha256(saved["model.safetensors"]).hexdigest()

        assert resolve_embedder(str(folder), expected_sha256=sha256.upper()).sha256 == sha256
        with pytest.raises(CheckpointInvalid, match="expected was"):
            resolve_embedder(str(folder), expected_sha256="0" * 64)


class TestOpening:
    def test_the_descriptors_embed_images_of_any_size_in_order(self) -> None:
        random = np.random.default_rng(0)
        images = [random.integers(0, 256, (20 + 5 * n, 40, 1), np.uint8) for n in range(5)]
        component = resolve_embedder(descriptors.NAME)

        one, many = open_embedder(component, CPU), open_embedder(component, CPU, workers=3)

        rows = one.embed(images)
        assert (one.name, one.sha256) == (descriptors.NAME, component.sha256)
        assert (rows.shape, rows.dtype) == ((5, one.dimension), np.float32)
        np.testing.assert_array_equal(rows, many.embed(images))
        np.testing.assert_array_equal(rows[3], descriptors.describe(images[3]))
        assert one.embed([]).shape == (0, one.dimension)

    def test_descriptors_of_another_version_are_refused(self) -> None:
        component = resolve_embedder(descriptors.NAME)
        older = Component(**{**vars(component), "sha256": "0" * 64})

        with pytest.raises(CheckpointInvalid, match="not those"):
            open_embedder(older, CPU)
        assert DescriptorEmbedder().sha256 == component.sha256

    def test_a_segmentation_network_is_no_embedder(self) -> None:
        network = Component(
            name="nuclei-1", architecture="residual-unet", sha256="", path="", licence=""
        )
        with pytest.raises(ModelError, match="no embedder"):
            open_embedder(network, CPU)


@pytest.mark.parametrize(
    ("said", "licence"),
    [("apache-2.0", "Apache-2.0"), ("dinov3-license", "dinov3-license"), (None, "unknown"),
     ("", "unknown")],
)  # fmt: skip
def test_licences_are_written_as_usual(said: str | None, licence: str) -> None:
    assert licence_of({"license": said}) == licence
