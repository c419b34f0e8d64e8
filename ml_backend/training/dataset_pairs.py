"""Which files of a dataset belong together: an image, and the masks of the objects in it.

Everything here is about names: paths relative to the dataset's root, with `/`, as a listing gives
them. Three habits are understood:

- two folders, whose files have the same name up to its ending (`images/a.tif`, `masks/a.png`);
- two patterns with one `*` each, which stands for the same text in both
  (`images/*.tif`, `masks/*_label.png`);
- Cellpose's: masks lie beside their image (`a.tif`, and `a_masks.tif` or `a_seg.npy`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ml_backend.errors import TrainingError

TIFF_ENDINGS = (".ome.tif", ".ome.tiff", ".tif", ".tiff")
IMAGE_ENDINGS = (
    *TIFF_ENDINGS,
    *(".lsm", ".svs", ".stk", ".btf", ".tf8", ".tf2"),
    *(".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".avif"),
    *(".pgm", ".ppm", ".pnm", ".pbm", ".pfm"),
)
MASK_ENDINGS = (*TIFF_ENDINGS, ".png", ".npy")

# Cellpose trains on `_masks`, its graphical program on `_seg.npy`. Its command line writes
# `_seg.npy` and `_cp_masks` beside every image that it segments: where somebody has drawn masks
# as well, those are what is meant.
BESIDE = ("_masks", "_mask", "_seg", "_cp_masks")
IN_A_FOLDER = ("", "_masks", "_mask", "_seg", "_labels", "_label", "_cp_masks")
IMAGE_SUFFIX = "_img"  # of images that have it: `a_img.tif` belongs to `a_masks.tif`
# what Cellpose and `ml-backend predict` write beside an image besides masks
WRITTEN = (
    *("_flows", "_cp_flows", "_flows_0", "_flows_1", "_flows_2", "_dP", "_cellprob"),
    *("_outlines", "_outlines_cp", "_cp_outlines", "_cp_output", "_cp_output_cp_masks", "_cp"),
    "_overlay",
)
FOLDERS_OF_IMAGES = ("images", "image", "img", "imgs", "raw")
FOLDERS_OF_MASKS = ("masks", "mask", "labels", "label", "annotations", "gt")

_NAMED = 5  # files in a sentence


@dataclass(frozen=True, kw_only=True)
class FilePair:
    """An image and its masks, relative to the dataset's root."""

    image: str
    mask: str


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What belongs together, and what is to be said of the rest."""

    pairs: tuple[FilePair, ...]  # by the image's name
    remarks: tuple[str, ...] = ()  # a sentence each


def find_pairs(
    files: Iterable[str], *, images: str | None, annotations: str | None, where: str
) -> Pairs:
    """Return the images that have masks.

    Args:
        files: All files of the dataset.
        images: A folder, or a pattern with one `*`; None = the whole dataset.
        annotations: Of the masks, the same; None = as Cellpose names them, or in a folder of their
            own beside the images'.
        where: What the dataset is called, for messages.

    Raises:
        TrainingError: there are none; the sentence says what was looked for.
    """
    every = sorted(set(files))
    if images is None and annotations is not None:
        raise TrainingError(
            f"Masks are named ({annotations!r}) and images are not; name both, or neither."
        )
    folder = _clean(images) if images is not None else ""
    if annotations is not None:
        return _joined(every, folder, _clean(annotations), where)
    if "*" in folder:
        raise TrainingError(
            f"The pattern {images!r} names images, but nothing names their masks; give a pattern "
            "for those as well (train_annotations, or --masks)."
        )
    return _conventional(every, _as_prefix(folder), where)


def without_ending(name: str, endings: Sequence[str] = (*IMAGE_ENDINGS, ".npy")) -> str:
    """Return a file's name without its ending; one that is not known stays."""
    lower = name.lower()
    for ending in endings:
        if lower.endswith(ending):
            return name[: -len(ending)]
    return name


def _conventional(files: Sequence[str], prefix: str, where: str) -> Pairs:
    """Return the pairs of a folder that is laid out as Cellpose or most others do it."""
    beside = _beside(files, prefix)
    if beside.pairs:
        return beside
    inside = _folders_in(files, prefix)
    for images in FOLDERS_OF_IMAGES:
        for masks in FOLDERS_OF_MASKS:
            if images in inside and masks in inside:
                named = f"{prefix}{inside[images]}/", f"{prefix}{inside[masks]}/"
                return _joined(files, *named, where)
    hint = _hint(files, prefix, inside)
    raise TrainingError(
        f"No image with masks was found in {_shown(where, prefix)}: looked for x_masks.tif, "
        "x_masks.png, x_seg.npy or x_cp_masks.png beside an image x.tif, x.png or x.jpg, and for "
        "files of the same name in the folders images and masks; name what is yours with patterns "
        f"such as 'images/*.tif' and 'masks/*_label.tif'{hint}."
    )


def _beside(files: Sequence[str], prefix: str) -> Pairs:
    """Return the pairs of a folder in which masks lie beside their image."""
    here = [name for name in files if name.startswith(prefix) and "/" not in name[len(prefix) :]]
    masks = _by_stem(here, MASK_ENDINGS)
    stems = {without_ending(name) for name in here if _ends(name, IMAGE_ENDINGS)}
    pairs, alone = [], []
    used: dict[str, str] = {}  # stem -> file
    remarks = []
    for name in here:
        stem = without_ending(name)
        if not _ends(name, IMAGE_ENDINGS) or _is_written(stem, stems):
            continue
        mask = _mask_of(stem, masks, BESIDE)
        if mask is None:
            alone.append(name)
        elif stem in used:
            remarks.append(f"{name} is left out: {used[stem]} has the same name.")
        else:
            used[stem] = name
            pairs.append(FilePair(image=name, mask=mask))
    remarks += _unpaired("image", "masks", alone)
    return Pairs(pairs=tuple(pairs), remarks=tuple(remarks))


def _is_written(stem: str, stems: set[str]) -> bool:
    """Return whether an image file is masks, or a picture that a program wrote of another image."""
    for suffix in ("_masks", "_cp_masks", "_mask", *WRITTEN):
        if stem.endswith(suffix):
            source = stem.removesuffix(suffix)
            if suffix in ("_masks", "_cp_masks") or {source, source + IMAGE_SUFFIX} & stems:
                return True
    return False


def _joined(files: Sequence[str], images: str, annotations: str, where: str) -> Pairs:
    """Return the pairs of two folders or patterns."""
    named = f"{images or './'} and {annotations or './'}"
    if images == annotations and "*" not in images:
        found = _beside(files, _as_prefix(images))
    else:
        masks = _Named.of(files, annotations, MASK_ENDINGS)
        taken = {name for names in masks.files.values() for name in names}
        pictures = _Named.of([name for name in files if name not in taken], images, IMAGE_ENDINGS)
        found = _matched(pictures, masks)
    if found.pairs:
        return found
    raise TrainingError(
        f"No image with masks was found in {where}: looked for files that {named} name together, "
        "the same text in both (a folder's files by their names without the ending, a pattern's "
        f"by what its * stands for){_what_there_is(files)}."
    )


@dataclass(frozen=True, kw_only=True)
class _Named:
    """The files that a folder or pattern names, by what they share with their partner."""

    files: Mapping[str, Sequence[str]]
    is_folder: bool

    @classmethod
    def of(cls, files: Iterable[str], named: str, endings: Sequence[str]) -> _Named:
        """Return the files that `named` names and that have one of the endings."""
        found: dict[str, list[str]] = {}
        is_folder = "*" not in named
        if is_folder:
            prefix = _as_prefix(named)
            for name in files:
                if name == named:  # a single file
                    found.setdefault("", []).append(name)
                elif name.startswith(prefix) and _ends(name, endings):
                    found.setdefault(without_ending(name[len(prefix) :]), []).append(name)
        else:
            before, after = named.split("*")
            pattern = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}")
            for name in files:
                match = pattern.fullmatch(name)
                if match and _ends(name, endings):
                    key = match[1] if after else without_ending(match[1])
                    found.setdefault(key, []).append(name)
        return cls(files=found, is_folder=is_folder)


def _matched(images: _Named, masks: _Named) -> Pairs:
    pairs: list[FilePair] = []
    alone: list[str] = []
    remarks: list[str] = []
    suffixes = IN_A_FOLDER if masks.is_folder else ("",)
    for key, names in sorted(images.files.items()):
        mask = _mask_of(key, masks.files, suffixes)
        if mask is None:
            alone += names
            continue
        pairs.append(FilePair(image=names[0], mask=mask))
        remarks += [f"{name} is left out: {names[0]} has the same name." for name in names[1:]]
    used = {pair.mask for pair in pairs}
    lonely = [name for names in masks.files.values() for name in names if name not in used]
    doubles = {name for names in masks.files.values() if used & set(names) for name in names}
    remarks += _unpaired("image", "masks", alone)
    remarks += _unpaired("mask file", "image", [name for name in lonely if name not in doubles])
    pairs.sort(key=lambda pair: pair.image)
    return Pairs(pairs=tuple(pairs), remarks=tuple(remarks))


def _mask_of(stem: str, masks: Mapping[str, Sequence[str]], suffixes: Sequence[str]) -> str | None:
    stems = [stem]
    if stem.endswith(IMAGE_SUFFIX):
        stems.append(stem.removesuffix(IMAGE_SUFFIX))
    for suffix in suffixes:
        for one in stems:
            if masks.get(one + suffix):
                return masks[one + suffix][0]
    return None


def _by_stem(files: Iterable[str], endings: Sequence[str]) -> dict[str, list[str]]:
    """Return files by their names without the ending, the one whose ending comes first first."""
    found: dict[str, list[str]] = {}
    for name in files:
        if _ends(name, endings):
            found.setdefault(without_ending(name), []).append(name)
    return {stem: sorted(names, key=_rank) for stem, names in found.items()}


def _rank(name: str) -> int:
    lower = name.lower()
    return next(rank for rank, ending in enumerate(MASK_ENDINGS) if lower.endswith(ending))


def _ends(name: str, endings: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(endings))


def _clean(named: str) -> str:
    """Return a folder or pattern as the names of files begin.

    Raises:
        TrainingError: it leads out of the dataset, or has several `*`.
    """
    parts = [part for part in named.split("/") if part not in ("", ".")]
    if named.startswith("/") or ".." in parts:
        raise TrainingError(
            f"{named!r} leads out of the dataset; name folders and patterns relative to its root."
        )
    if named.count("*") > 1:
        raise TrainingError(
            f"The pattern {named!r} has {named.count('*')} stars; one * stands for what the name "
            "of an image and that of its masks have in common."
        )
    return "/".join(parts)


def _as_prefix(folder: str) -> str:
    return folder if not folder or folder.endswith("/") else f"{folder}/"


def _folders_in(files: Iterable[str], prefix: str) -> dict[str, str]:
    """Return the names of the folders in a folder, by how they are written in small letters."""
    inside = (name[len(prefix) :] for name in files if name.startswith(prefix))
    return {
        folder.lower(): folder
        for folder, slash, _ in (one.partition("/") for one in inside)
        if slash
    }


def _hint(files: Sequence[str], prefix: str, inside: Mapping[str, str]) -> str:
    for folder in sorted(inside.values()):
        if _beside(files, f"{prefix}{folder}/").pairs:
            return f", or name the folder {prefix}{folder}, which has such files"
    return ""


def _what_there_is(files: Sequence[str]) -> str:
    if not files:
        return "; it holds no file"
    return f"; it holds {', '.join(files[:_NAMED])}" + (" ..." if len(files) > _NAMED else "")


def _unpaired(what: str, lacks: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    if len(names) == 1:
        return [f"1 {what} has no {lacks} and is left out: {listed}."]
    return [f"{len(names)} {what}s have no {lacks} and are left out: {listed}."]


def _shown(where: str, prefix: str) -> str:
    return where if not prefix else f"{prefix} of {where}"
