"""What is asked of every exported package: the real command, and the same masks when read back."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ml_backend.domain import Component, Image, LabelImage, Priority, SegmentationOptions
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.cellpose import CellposeSegmenter
from ml_backend.engines.device_profile import DeviceProfile, Precision
from ml_backend.engines.network_store import NetworkStore
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.model_files.hashes import file_sha256
from ml_backend.service.package_import import UnpackedModel, unpack_package

PLAIN = Precision(dtype=torch.float32, channels_last=False)
MEASURED = DeviceProfile(
    device="cpu", device_name="CPU", precision=PLAIN.name, tile_ms={}, disagreement={}
)
NO_NETWORK = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}


def bioimageio(arguments: Sequence[str], aside: Path) -> subprocess.CompletedProcess[str]:
    """Run the real command `bioimageio`, as somebody types it who has the package only."""
    aside.mkdir(exist_ok=True)
    return subprocess.run(
        [str(Path(sys.executable).with_name("bioimageio")), *arguments],
        cwd=aside,
        env={
            **os.environ,
            **NO_NETWORK,
            "BIOIMAGEIO_CACHE_PATH": str(aside / "cache"),
            "OMP_NUM_THREADS": "1",
            "CI": "true",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def unpacked(archive: Path, folder: Path) -> Path:
    """Return a folder with the files of an archive, as people unpack it."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def read_back(archive: Path, into: Path) -> tuple[UnpackedModel, Component]:
    """Return what our own import makes of an archive."""
    into.mkdir()
    model = unpack_package(archive, into)
    component = Component(
        name=model.name,
        architecture=model.architecture,
        sha256=file_sha256(model.weights),
        path=str(model.weights),
        licence=model.licence,
        diameter=model.diameter,
    )
    return model, component


def nuclei(seed: int = 1, shape: tuple[int, int] = (300, 340)) -> Image:
    """Return an image with nuclei that no package was made with."""
    picture, _ = fluorescent_nuclei(seed, shape, count=45)
    return Image(pixels=picture[..., None], sha256=f"nuclei {seed} {shape}")


def masks_of(component: Component, image: Image, diameter: float | None = None) -> LabelImage:
    """Return what the engine makes of an image with a network, in float32, with empty caches."""
    networks = NetworkStore(DeviceThread(torch.device("cpu")))
    networks._measured[component.architecture] = (PLAIN, MEASURED)  # takes seconds
    with CellposeSegmenter(networks) as segmenter:
        return segmenter.segment(
            image,
            SegmentationOptions(diameter=diameter),
            component=component,
            priority=Priority.INTERACTIVE,
        ).labels


def overlaps_inside(expected: LabelImage, found: LabelImage, margin: int = 12) -> list[float]:
    """Return the best intersection over union of each expected object that is not at an edge."""
    overlaps = []
    for number in range(1, int(expected.max()) + 1):
        own = expected == number
        rows, columns = np.nonzero(own)
        last_row, last_column = own.shape[0] - margin, own.shape[1] - margin
        if min(rows.min(), columns.min()) < margin or rows.max() >= last_row:
            continue
        if columns.max() >= last_column:
            continue
        others = np.unique(found[own])
        overlaps.append(
            max(
                float((own & (found == other)).sum() / (own | (found == other)).sum())
                for other in others
            )
        )
    return overlaps
