"""Small datasets in files, laid out as people lay them out, for tests."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tifffile
from cellpose.io import masks_flows_to_seg
from PIL import Image as PillowImage

from ml_backend.datasets import DatasetSource
from ml_backend.domain import LabelImage
from ml_backend.learning import TrainingParameters
from tests.training_site import discs

QUICK = TrainingParameters(n_epochs=2, n_samples=4, batch_size=2, crop=64, validation_interval=1)


def picture(seed: int) -> tuple[np.ndarray, LabelImage]:
    """Return ((Y, X) uint8, labels): bright discs on noise."""
    png, labels = discs(seed)
    return np.asarray(PillowImage.open(io.BytesIO(png))), labels


def write_png(path: Path, array: np.ndarray) -> None:
    """Write an array as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(array).save(path)


def write_tiff(path: Path, array: np.ndarray) -> None:
    """Write an array as a TIFF file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, compression="zlib")


def write_seg(image: Path, labels: LabelImage) -> None:
    """Write masks beside an image as Cellpose does."""
    flows = [
        np.zeros((*labels.shape, 3), np.uint8),
        np.zeros((2, *labels.shape), np.float32),
        np.zeros(labels.shape, np.float32),
    ]
    masks_flows_to_seg(np.zeros(labels.shape), labels, flows, str(image))


def folder_pairs(root: Path, seeds: Iterable[int] = range(1, 6)) -> DatasetSource:
    """Write images and masks into folders of their own."""
    for seed in seeds:
        pixels, labels = picture(seed)
        write_png(root / "images" / f"{seed}.png", pixels)
        write_png(root / "masks" / f"{seed}.png", labels.astype(np.uint16))
    return DatasetSource(root=str(root), train_images="images/", train_annotations="masks/")


def patterns(root: Path, seeds: Iterable[int] = range(1, 6)) -> DatasetSource:
    """Write images and masks into one folder, under names of their own."""
    for seed in seeds:
        pixels, labels = picture(seed)
        write_tiff(root / "all" / f"well-{seed}.ome.tif", pixels)
        write_tiff(root / "all" / f"well-{seed}_truth.tif", labels)
    return DatasetSource(
        root=str(root), train_images="all/*.ome.tif", train_annotations="all/*_truth.tif"
    )


def metadata(root: Path, seeds: Iterable[int] = range(1, 6)) -> DatasetSource:
    """Write images and masks anywhere, and JSON files that name them."""
    for seed in seeds:
        pixels, labels = picture(seed)
        write_png(root / f"a{seed}.png", pixels)
        np.save(root / f"b{seed * 7}.npy", labels)
        entry = {"image_path": f"a{seed}.png", "mask_path": f"./b{seed * 7}.npy"}
        (root / "meta").mkdir(exist_ok=True)
        (root / "meta" / f"{seed}.json").write_text(json.dumps(entry))
    return DatasetSource(root=str(root), metadata_dir="meta")


def cellpose_folder(root: Path, seeds: Iterable[int] = range(1, 6)) -> DatasetSource:
    """Write what Cellpose trains on: masks beside images, as TIFF and as `_seg.npy`."""
    for seed in seeds:
        pixels, labels = picture(seed)
        write_tiff(root / f"{seed}.tif", pixels)
        if seed % 2:
            write_tiff(root / f"{seed}_masks.tif", labels.astype(np.uint16))
        else:
            write_seg(root / f"{seed}.tif", labels)
    return DatasetSource(root=str(root))


LAYOUTS: dict[str, Callable[[Path], DatasetSource]] = {
    "folders": folder_pairs,
    "patterns": patterns,
    "metadata": metadata,
    "cellpose": cellpose_folder,
}


def zipped(root: Path) -> bytes:
    """Return a folder as a zip archive, the folder itself within it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(root.parent).as_posix())
    return packed.getvalue()


def assert_same_objects(found: np.ndarray, expected: np.ndarray) -> None:
    """Check that two label images hold the same objects, whatever their numbers."""
    assert found.shape == expected.shape
    both = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    assert both.shape[1] == len(np.unique(found)) == len(np.unique(expected))
