"""The demo's images: made by our own generator, and those inside scikit-image."""

from __future__ import annotations

from pathlib import Path

from ml_backend.imaging.samples import bundled_samples, made_samples

CONFIG = Path(__file__).resolve().parents[1] / "label_configs" / "polygons.xml"
# pictures of scikit-image in which a network for cells may rightly find none
PERHAPS_WITHOUT_CELLS = ("coins", "cell", "immunohistochemistry")


def label_config() -> str:
    """Return the label config of the demo's project."""
    return CONFIG.read_text()


def write_samples(folder: Path) -> list[Path]:
    """Write all sample images as PNG, which Label Studio takes as uploads; return the files."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for sample in [*made_samples(), *bundled_samples()]:
        file = folder / f"{sample.name}.png"
        Image.fromarray(sample.picture).save(file)
        files.append(file)
    return files


def has_cells(file_name: str) -> bool:
    """Return whether the image, by the name that Label Studio gave its upload, shows cells."""
    stem = Path(file_name).stem.partition("-")[2]  # behind eight letters of Label Studio's own
    return stem not in PERHAPS_WITHOUT_CELLS
