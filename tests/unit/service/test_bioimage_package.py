"""The built-in network as a BioImage.IO package: the real command, the same masks and bytes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from cellpose import vit
from PIL import Image as Picture

from ml_backend.domain import Component
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.instances import InstanceOptions
from ml_backend.engines.lora import read_state
from ml_backend.engines.network_store import load_on_cpu
from ml_backend.engines.packaged import masks
from ml_backend.errors import BadRequest, EngineError, ModelError
from ml_backend.model_files.architectures import SAM_VITL
from ml_backend.model_files.hashes import file_sha256
from ml_backend.processes.manners import processors
from ml_backend.service.bioimage_package import BuiltPackage, PackageBuilder
from ml_backend.service.export_request import (
    Author,
    Citation,
    ExportRequest,
    Uploader,
)
from ml_backend.service.package_network import pack_network
from ml_backend.service.package_programs import PackagePrograms, TracePlan
from ml_backend.service.package_sample import resized
from tests.differing_networks import make_version
from tests.package_checks import (
    bioimageio,
    masks_of,
    nuclei,
    overlaps_inside,
    read_back,
    unpacked,
)
from tests.small_cpsam import SmallCpsam, save_small_cpsam

pytestmark = pytest.mark.unhurried

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AUTHOR = Author(name="A. Author", affiliation="An Institute")
REQUEST = ExportRequest(
    model="nuclei-1",
    title="Nuclei by a small network",
    description="Outlines nuclei.",
    authors=(AUTHOR,),
    uploader=Uploader(email="author@example.org", name="A. Author"),
    citations=(Citation(text="A page", url="https://unreachable.invalid/page"),),
    collection="tests",
)


class NoPrograms(PackagePrograms):
    """Passes every package, without running it."""

    def __init__(self, problem: str | None = None) -> None:
        self.problem = problem
        self.tested: list[Path] = []

    def require(self) -> None:
        """Nothing is needed."""

    def test(self, archive: Path, aside: Path, *, threads: int | None = None) -> None:
        """Note the archive."""
        self.tested.append(archive)
        if self.problem is not None:
            raise EngineError(self.problem)

    def write_torchscript(self, folder: Path, aside: Path, plan: TracePlan) -> bool:
        """Write nothing."""
        return False


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Compute in one thread: these networks are small, and others compute beside us."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(factor: float = 1.0) -> ExportRequest:
    """Return a request with an image that is quickly looked at."""
    pixels = nuclei(shape=(200, 240)).pixels
    return dataclasses.replace(REQUEST, sample=npy(resized(pixels, factor)))


def npy(array: Any) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def built_in() -> Component:
    return resolve_component("nuclei-1", models_dir=Path("nowhere"), cuda=False)


def build(
    folder: Path,
    component: Component | None = None,
    request: ExportRequest = REQUEST,
    programs: PackagePrograms | None = None,
    load: Any = load_on_cpu,
) -> BuiltPackage:
    folder.mkdir()
    builder = PackageBuilder(load, programs or NoPrograms(), clock=lambda: NOON)
    return builder.build(component or built_in(), request, folder, lambda _: None)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> BuiltPackage:
    """Return the package of the built-in network, with everything that is done to it."""
    return build(tmp_path_factory.mktemp("export") / "built", programs=PackagePrograms())


@pytest.fixture(scope="module")
def files(package: BuiltPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package as people unpack it."""
    return unpacked(package.archive, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="module")
def described(files: Path) -> Mapping[str, Any]:
    """Return its description."""
    loaded: Mapping[str, Any] = yaml.safe_load((files / "bioimageio.yaml").read_text())
    return loaded


def test_the_real_command_is_content(package: BuiltPackage, tmp_path: Path) -> None:
    done = bioimageio(["test", str(package.archive), "--summary", "r.json"], tmp_path / "aside")

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "aside" / "r.json").read_text())
    assert report["status"] == "passed"
    tested = {detail["name"] for detail in report["details"]}
    assert "Reproduce test outputs from test inputs (pytorch_state_dict)" in tested
    assert "Reproduce test outputs from test inputs (torchscript)" in tested
    incomplete = [
        warning["msg"]
        for detail in report["details"]
        for warning in detail["warnings"]
        if "FAIR" in warning["msg"]
    ]
    assert incomplete == []


def test_masks_are_the_same_when_it_is_read_back(package: BuiltPackage, tmp_path: Path) -> None:
    model, component = read_back(package.archive, tmp_path / "again")
    image = nuclei()

    before, after = masks_of(built_in(), image), masks_of(component, image)

    assert before.max() > 20
    np.testing.assert_array_equal(after, before)
    assert (model.licence, model.architecture) == ("CC0-1.0", "residual-unet")
    assert model.manifest["exported"]["sha256"] == built_in().sha256


def test_bioimageio_alone_answers_as_the_engine_does(
    package: BuiltPackage, files: Path, tmp_path: Path
) -> None:
    image = nuclei(shape=(304, 336))
    np.save(tmp_path / "image.npy", image.pixels[..., 0][None, None].astype(np.float32))
    program = (
        "import sys, numpy as np\n"
        "from bioimageio.core import predict\n"
        "archive, folder = sys.argv[1:]\n"
        "image = np.load(f'{folder}/image.npy')\n"
        "found = predict(model=archive, inputs={'image': image})\n"
        "np.save(f'{folder}/flows.npy', found.members['flows'].data.to_numpy())\n"
    )
    subprocess.run(
        [sys.executable, "-I", "-c", program, str(package.archive), str(tmp_path)],
        check=True,
        env=ONE_THREAD,
    )

    # and the program in the package makes masks of it
    subprocess.run(
        [sys.executable, str(files / "masks.py"), "flows.npy", "masks.tif"],
        cwd=tmp_path,
        check=True,
        env=ONE_THREAD,
    )
    found = tifffile.imread(tmp_path / "masks.tif").astype(np.int32)
    overlaps = overlaps_inside(masks_of(built_in(), image, diameter=22.0), found)
    # bioimageio mirrors images at their edges
    assert len(overlaps) > 20
    assert min(overlaps) > 0.9


def test_the_test_output_is_what_our_own_program_promises(files: Path) -> None:
    network = pack_network(
        built_in(),
        load_on_cpu,
        lambda _: InstanceOptions(
            flow_threshold=0.4, cellprob_threshold=0.0, iterations=200, min_size=15
        ),
    )
    tested = np.load(files / "test_input.npy")
    answer = np.load(files / "test_output.npy")

    own = network.answer(np.moveaxis(tested[0], 0, -1))
    np.testing.assert_allclose(answer[0], own, atol=1e-4)
    # Cellpose's dynamics in the package and ours draw the same label image
    np.testing.assert_array_equal(masks.label_image(answer), network.labels(own))


def test_all_that_was_said_is_in_the_description(described: Mapping[str, Any], files: Path) -> None:
    assert described["name"] == "Nuclei by a small network"
    assert described["description"] == "Outlines nuclei."
    assert described["authors"] == [{"name": "A. Author", "affiliation": "An Institute"}]
    assert described["uploader"] == {"email": "author@example.org", "name": "A. Author"}
    assert described["license"] == "CC0-1.0"
    assert described["cite"][0] == {"text": "A page", "url": "https://unreachable.invalid/page"}
    assert any(one.get("doi") == "10.1038/s41592-020-01018-x" for one in described["cite"])
    assert "tests" in described["tags"]
    assert described["config"]["label_studio_cell_backend"]["collection"] == "tests"
    assert described["timestamp"] == NOON.isoformat()
    card = (files / "README.md").read_text()
    for words in ("Nuclei by a small network", "CC0-1.0", "BBBC038", "0.935", "## Validation"):
        assert words in card


def test_the_cover_is_a_picture_that_bioimage_io_takes(files: Path) -> None:
    content = (files / "cover.png").read_bytes()
    cover = Picture.open(BytesIO(content))
    assert cover.width == 2 * cover.height
    assert len(content) < 500_000
    pixels = np.asarray(cover.convert("RGB")).astype(int)
    colourful = np.ptp(pixels, axis=-1) > 40
    middle = cover.width // 2
    assert colourful[:, middle:].mean() > 0.05  # what was found
    assert not colourful[:, : middle - 4].any()  # the image as it is


def test_nothing_of_this_machine_is_in_it(files: Path) -> None:
    home, package_folder = str(Path.home()), str(Path(masks.__file__).parents[3])
    for path in files.iterdir():
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as inner:
                content += b"".join(inner.read(name) for name in inner.namelist())
        assert package_folder.encode() not in content, path
        assert home.encode() + b"/" not in content, path


def test_torchscript_is_the_same_each_time(files: Path, tmp_path: Path) -> None:
    description = yaml.safe_load((files / "bioimageio.yaml").read_text())
    architecture = description["weights"]["pytorch_state_dict"]["architecture"]
    for name in ("architecture.py", "weights.pt"):
        shutil.copy(files / name, tmp_path)
    plan = TracePlan(
        target="weights-torchscript.pt",
        architecture="architecture.py",
        weights="weights.pt",
        callable=architecture["callable"],
        arguments=architecture["kwargs"],
        channels=1,
        least=192,
        step=16,
    )
    assert PackagePrograms().write_torchscript(tmp_path, tmp_path, plan)
    again, before = tmp_path / plan.target, files / plan.target
    assert again.read_bytes() == before.read_bytes()


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    one = build(tmp_path / "one", request=small())
    other = build(tmp_path / "other", request=small())
    assert one.archive.read_bytes() == other.archive.read_bytes()


def test_what_fails_its_test_is_not_handed_out(tmp_path: Path) -> None:
    programs = NoPrograms(problem="The package does not pass.")
    with pytest.raises(EngineError, match="does not pass"):
        build(tmp_path / "built", request=small(), programs=programs)
    assert programs.tested


def test_a_real_failure_is_told_in_a_sentence(tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("bioimageio.yaml", "type: model\nformat_version: 0.5.4\nname: nothing\n")
    with pytest.raises(EngineError, match="does not pass bioimageio's test") as failed:
        PackagePrograms().test(archive, tmp_path, threads=1)
    assert failed.value.message.endswith(".")
    assert "\n" not in failed.value.message


def test_a_licence_that_is_too_lax_is_refused_before_any_work(tmp_path: Path) -> None:
    component = dataclasses.replace(built_in(), licence="CC-BY-NC-4.0")
    programs = NoPrograms()
    with pytest.raises(BadRequest, match="would ask for less"):
        build(
            tmp_path / "built",
            component,
            dataclasses.replace(REQUEST, licence="MIT"),
            programs,
        )
    assert not programs.tested


def test_a_sample_of_one_s_own_is_what_it_is_tested_with(tmp_path: Path) -> None:
    sample = npy(np.repeat(nuclei().pixels, 3, axis=-1))  # (Y, X, 3)
    package = build(tmp_path / "built", request=dataclasses.replace(REQUEST, sample=sample))

    folder = unpacked(package.archive, tmp_path / "unpacked")
    assert np.load(folder / "test_input.npy").shape == (1, 3, 288, 336)
    description = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    assert description["inputs"][0]["axes"][1]["channel_names"] == ["red", "green", "blue"]
    assert package.objects > 20


def test_a_network_that_finds_nothing_is_packed_with_a_note(tmp_path: Path) -> None:
    blind = make_version(tmp_path / "models", "blind", bias=-1000)
    package = build(tmp_path / "built", blind, small())
    assert package.objects == 0
    assert any("found nothing" in note for note in package.notes)


def test_a_network_of_another_size_resizes_inside(tmp_path: Path) -> None:
    large = make_version(tmp_path / "models", "large", bias=0, diameter=44.0)
    package = build(tmp_path / "built", large, small(2.0))

    folder = unpacked(package.archive, tmp_path / "unpacked")
    description = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    weights = description["weights"]["pytorch_state_dict"]
    assert weights["architecture"]["kwargs"]["scale"] == 0.5
    assert description["inputs"][0]["axes"][2]["size"] == {"min": 384, "step": 16}
    assert package.objects > 10  # nuclei twice as large
    model, component = read_back(package.archive, tmp_path / "again")
    assert model.diameter == 44.0
    image = nuclei()
    np.testing.assert_array_equal(masks_of(component, image), masks_of(large, image))


def test_cellpose_s_transformer_is_packed(tmp_path: Path) -> None:
    component = save_small_cpsam(tmp_path)

    def load(one: Component) -> torch.nn.Module:
        network = SmallCpsam()
        network.load_state_dict(read_state(Path(one.path)))
        return network.eval().requires_grad_(False)

    package = build(
        tmp_path / "built", component, dataclasses.replace(REQUEST, licence=None), load=load
    )

    folder = unpacked(package.archive, tmp_path / "unpacked")
    description = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    assert description["license"] == "CC-BY-NC-4.0"
    assert description["inputs"][0]["axes"][2]["size"] == 256
    assert not (folder / "weights-torchscript.pt").exists()
    assert "Not for commercial use" in (folder / "README.md").read_text()
    assert any("not for commercial use" in note for note in package.notes)
    model, _ = read_back(package.archive, tmp_path / "again")
    for key, tensor in read_state(Path(component.path)).items():
        np.testing.assert_array_equal(read_state(model.weights)[key], tensor)
    done = bioimageio(["test", str(package.archive)], tmp_path / "aside")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_network_that_nobody_could_build_is_refused(tmp_path: Path) -> None:
    component = Component(
        name="mine", architecture="dino-vitl", sha256="ab" * 32, path="gone", licence="CC0-1.0"
    )
    with pytest.raises(ModelError, match="dinov3"):
        build(tmp_path / "built", component, load=lambda _: torch.nn.Linear(1, 1))


@pytest.mark.slow
def test_cellpose_s_transformer_is_packed_in_full_size(tmp_path: Path) -> None:
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
    before = torch.get_num_threads()
    torch.set_num_threads(processors())
    try:
        package = build(tmp_path / "built", component, small(), PackagePrograms())
    finally:
        torch.set_num_threads(before)
    with zipfile.ZipFile(package.archive) as packed:
        assert packed.getinfo("weights.pt").file_size > 1_000_000_000
