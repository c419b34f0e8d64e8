"""A network as a BioImage.IO package: written, tested as strangers will test it, and read back.

What is handed out has passed `bioimageio test` in a process that does not know this program, and
gives the same masks when it is read back. All numbers are computed in float32 on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
import torch

from ml_backend.domain import Component
from ml_backend.engines.packaged import masks
from ml_backend.errors import EngineError
from ml_backend.model_files.architectures import RESIDUAL_UNET
from ml_backend.model_files.hashes import file_sha256
from ml_backend.service.cover import draw_answer, draw_cover
from ml_backend.service.export_request import Citation, ExportRequest, title_of
from ml_backend.service.licences import licence_of_copy
from ml_backend.service.model_card import CardFacts, write_card
from ml_backend.service.package_archive import write_archive
from ml_backend.service.package_description import (
    CELLPOSE,
    CELLPOSE_SAM,
    Described,
    write_description,
)
from ml_backend.service.package_facts import PackageFacts, facts_of
from ml_backend.service.package_import import unpack_package
from ml_backend.service.package_manifest import (
    manifest_of_package,
    mask_options,
    measured_options,
)
from ml_backend.service.package_names import (
    ARCHITECTURE,
    COVER,
    MANIFEST,
    MASKS,
    OWN_WEIGHTS,
    READ_ME,
    SAMPLE_INPUT,
    SAMPLE_OUTPUT,
    TEST_INPUT,
    TEST_OUTPUT,
    TORCHSCRIPT,
    WEIGHTS,
)
from ml_backend.service.package_network import Load, PackedNetwork, pack_network
from ml_backend.service.package_programs import FEW, PackagePrograms, TracePlan
from ml_backend.service.package_trial import Trial, try_network

KINDS: Final[Mapping[str, str]] = {RESIDUAL_UNET: "residual U-Net"}
OTHER_KIND: Final = "vision transformer"
TIFF: Final[dict[str, Any]] = {
    "compression": "zlib",
    "photometric": "minisblack",
    "metadata": None,  # and no date
}
_TAGS: Final = ("instance-segmentation", "segmentation", "2d", "cells", "nuclei", "cellpose-flows")

Tell = Callable[[str], None]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class BuiltPackage:
    """An archive that has passed its tests."""

    archive: Path
    objects: int  # that the network found in the sample
    notes: tuple[str, ...]  # a sentence each, for the person who asked


class PackageBuilder:
    """Makes packages."""

    def __init__(
        self, load: Load, programs: PackagePrograms, *, clock: Callable[[], datetime] = _now
    ) -> None:
        """Keep the collaborators.

        Args:
            load: Returns the verified float32 network of a component, on the CPU.
            programs: Run what is packed.
            clock: Says when a package was made.
        """
        self._load, self._programs, self._clock = load, programs, clock

    def build(
        self, component: Component, request: ExportRequest, folder: Path, tell: Tell
    ) -> BuiltPackage:
        """Return the package of a network, tested and read back.

        Args:
            component: The network.
            request: What is to be said of it, checked.
            folder: Empty; everything is written there, and the caller removes it.
            tell: Is told what is being done, a few words each time.

        Raises:
            BadRequest: the licence is too lax, or the sample is no image.
            ModelError: the network cannot be loaded, or none of its kind can be packed.
            EngineError: the package does not pass its test, or gives other masks when read back.
            OSError: the disk is full or cannot be written.
        """
        self._programs.require()
        licence = licence_of_copy(component.licence, request.licence, name=component.name)
        inside, aside = folder / "package", folder / "aside"
        inside.mkdir()
        aside.mkdir()
        facts = facts_of(component)
        tell("reading the network")
        packed = pack_network(component, self._load, lambda scale: measured_options(facts, scale))
        tell("asking it about the test image")
        trial = try_network(packed, request.sample)
        tell("writing the package")
        _write_files(inside, packed, trial, facts, licence)
        has_torchscript = packed.architecture.tile is None and self._trace(
            inside, aside, packed, trial.tested.shape[2]
        )
        self._describe(inside, packed, request, trial, facts, licence, has_torchscript)
        archive = folder / "package.zip"
        write_archive(inside, archive)
        tell("testing it with bioimageio")
        few = FEW if packed.architecture.tile is None else None
        self._programs.test(archive, aside, threads=few)
        tell("reading it back")
        self._read_back(archive, aside, packed, trial)
        return BuiltPackage(
            archive=archive, objects=trial.found, notes=tuple(_notes(trial, licence))
        )

    def _describe(
        self,
        inside: Path,
        packed: PackedNetwork,
        request: ExportRequest,
        trial: Trial,
        facts: PackageFacts,
        licence: str,
        has_torchscript: bool,
    ) -> None:
        component, architecture = packed.component, packed.architecture
        kind = KINDS.get(component.architecture, OTHER_KIND)
        title = request.title or title_of(component.name)
        description = request.description or _description(kind, packed)
        citations = _citations(component)
        card = CardFacts(
            request=request,
            title=title,
            description=description,
            licence=licence,
            name=component.name,
            sha256=component.sha256,
            facts=facts,
            frame=packed.frame,
            network_diameter=packed.traits.diameter,
            diameter=component.diameter,
            architecture=kind,
            parameters=architecture.parameters,
            channels=trial.tested.shape[2],
            masks=mask_options(packed.options),
            clahe=bool(facts.part("segmentation").get("clahe")),
            score_threshold=float(facts.part("segmentation").get("score_threshold") or 0.0),
            sample=trial.about,
            found=trial.found,
            has_torchscript=has_torchscript,
            has_own_weights=(inside / OWN_WEIGHTS).is_file(),
            citations=citations,
        )
        (inside / READ_ME).write_text(write_card(card), encoding="utf-8")
        collection = [] if request.collection is None else [request.collection]
        write_description(
            inside,
            Described(
                request=request,
                title=title,
                description=description,
                licence=licence,
                facts=facts,
                frame=packed.frame,
                channels=trial.tested.shape[2],
                largest_answer=float(trial.answer.max()),
                architecture=kind,
                callable=architecture.callable,
                arguments=architecture.arguments,
                parameters=architecture.parameters,
                torch_version=torch.__version__.partition("+")[0],
                made_at=self._clock(),
                tags=(*_TAGS, kind.replace(" ", "-").lower(), *collection),
                citations=citations,
            ),
        )

    def _trace(self, inside: Path, aside: Path, packed: PackedNetwork, channels: int) -> bool:
        plan = TracePlan(
            target=TORCHSCRIPT,
            architecture=ARCHITECTURE,
            weights=WEIGHTS,
            callable=packed.architecture.callable,
            arguments=packed.architecture.arguments,
            channels=channels,
            least=packed.frame.least,
            step=packed.frame.step,
        )
        return self._programs.write_torchscript(inside, aside, plan)

    def _read_back(self, archive: Path, aside: Path, packed: PackedNetwork, trial: Trial) -> None:
        into = aside / "read-back"
        into.mkdir()
        unpacked = unpack_package(archive, into)
        again = pack_network(
            Component(
                name=unpacked.name,
                architecture=unpacked.architecture,
                sha256=file_sha256(unpacked.weights),
                path=str(unpacked.weights),
                licence=unpacked.licence,
                diameter=unpacked.diameter,
            ),
            self._load,
            lambda _scale: packed.options,
        )
        if not np.array_equal(again.labels(again.answer(trial.tested)), trial.tested_labels):
            raise EngineError(
                f"The package of {packed.component.name!r} gives other masks when it is read back "
                "and is not handed out; this is a mistake of this program."
            )


def _write_files(
    inside: Path, packed: PackedNetwork, trial: Trial, facts: PackageFacts, licence: str
) -> None:
    packed.write(inside)
    tested = np.ascontiguousarray(np.moveaxis(trial.tested, -1, 0))  # (C, Y, X)
    np.save(inside / TEST_INPUT, tested[None].astype(np.float32), allow_pickle=False)
    np.save(inside / TEST_OUTPUT, trial.answer[None], allow_pickle=False)
    tifffile.imwrite(inside / SAMPLE_INPUT, tested.squeeze(), **TIFF)
    (inside / SAMPLE_OUTPUT).write_bytes(draw_answer(trial.answer))
    (inside / COVER).write_bytes(draw_cover(trial.shown, trial.shown_labels))
    (inside / MASKS).write_bytes(Path(masks.__file__).read_bytes())
    manifest = json.dumps(
        manifest_of_package(inside, packed, facts, licence), indent=2, ensure_ascii=False
    )
    (inside / MANIFEST).write_text(manifest + "\n", encoding="utf-8")


def _citations(component: Component) -> tuple[Citation, ...]:
    return CELLPOSE if component.architecture == RESIDUAL_UNET else (*CELLPOSE_SAM, *CELLPOSE)


def _description(kind: str, packed: PackedNetwork) -> str:
    made = packed.component.diameter
    size = "" if made is None else f" of about {made:.0f} pixels"
    return (
        f"Outlines cells or nuclei{size} in two-dimensional microscopy images: a {kind} that "
        "predicts Cellpose's flows and cell probability."
    )


def _notes(trial: Trial, licence: str) -> list[str]:
    notes = []
    if trial.found == 0:
        other = "name an image of your own as sample" if trial.is_made else "choose another sample"
        notes.append(f"The network found nothing in the test image; {other}.")
    if "-NC" in licence:
        notes.append(f"The weights are under {licence}: not for commercial use.")
    return notes
