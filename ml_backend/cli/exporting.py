"""`export`: a model as a file for other programs; and the hidden command an engine does it with."""

from __future__ import annotations

import io
import os
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_backend.cli.backend import named_server, open_backend
from ml_backend.cli.console import begin, complaints, console, fail, sentences
from ml_backend.service.export_request import (
    Author,
    Citation,
    ExportFormat,
    ExportRequest,
    Uploader,
    checked,
)

if TYPE_CHECKING:
    from ml_backend.settings import Settings

_SOURCE = re.compile(r"\s*(?:doi:)?(10\.\d{4,9}/\S+|https?://\S+)\s*$", re.IGNORECASE)
_MAIL = re.compile(r"(?P<name>[^<]*)<(?P<email>[^>]*)>\s*")


def export(
    model: Annotated[
        str, typer.Argument(help="Name of a model, a session's id or a checkpoint's path.")
    ],
    output: Annotated[Path, typer.Option(help="File to write.")],
    export_format: Annotated[
        ExportFormat,
        typer.Option("--format", help="A BioImage.IO package, or a checkpoint of Cellpose."),
    ] = ExportFormat.BIOIMAGEIO,
    title: Annotated[
        str | None, typer.Option(help="Name of the package; default: the model's.")
    ] = None,
    description: Annotated[str, typer.Option(help="A sentence or two.")] = "",
    author: Annotated[
        list[str] | None,
        typer.Option(help='Such as "A. Author, An Institute"; once for each author.'),
    ] = None,
    uploader: Annotated[
        str | None, typer.Option(help='Such as "A. Author <author@example.org>".')
    ] = None,
    citation: Annotated[
        list[str] | None,
        typer.Option(help="Text that ends in a DOI or an address; once for each."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX identifier; default: that of the weights.")
    ] = None,
    collection: Annotated[str | None, typer.Option(help="A tag.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Image to test with; default: one that is drawn.")
    ] = None,
) -> None:
    """Write a model as a file for other programs: a tested BioImage.IO package, or a checkpoint."""
    with sentences():
        request = checked(
            ExportRequest(
                model=model,
                format=export_format,
                title=title,
                description=description,
                authors=tuple(_author(text) for text in author or ()),
                uploader=None if uploader is None else _uploader(uploader),
                citations=tuple(_citation(text) for text in citation or ()),
                licence=licence,
                collection=collection,
            )
        )
        settings = begin("export")
        if sample is not None:
            request = checked(_with_sample(request, settings, sample))
        if named_server() is None:
            _export_here(settings, request, output)
        else:
            _export_there(request, output)


def _export_there(request: ExportRequest, output: Path) -> None:
    """Have the server that is named write the file."""
    import numpy as np

    def told(thing: Author | Uploader | Citation) -> dict[str, str]:
        return {name: value for name, value in asdict(thing).items() if value is not None}

    sample = None
    if request.sample is not None:
        sample = np.load(io.BytesIO(request.sample), allow_pickle=False)
    with open_backend("export") as client, complaints.status(f"{client.url} writes it"):
        written = client.models.export(
            request.model,
            output,
            format=request.format.value,
            model_name=request.title,
            description=request.description or None,
            authors=[told(author) for author in request.authors],
            uploader=None if request.uploader is None else told(request.uploader),
            citation=[told(citation) for citation in request.citations],
            licence=request.licence,
            collection=request.collection,
            sample=sample,
        )
    _say_written(written)


def _export_here(settings: Settings, request: ExportRequest, output: Path) -> None:
    from ml_backend.bootstrap.exports import export_here  # torch takes a second

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # beside it, so that it is there as a whole or not at all
        aside = tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent)
    except OSError as error:
        fail(f"{output} cannot be written ({error.strerror or error}); name another file.")
    with aside as folder, complaints.status("reading the network") as status:
        exported = export_here(settings, request, Path(folder), lambda what: status.update(what))
        os.replace(exported.path, output)
    for note in exported.notes:
        complaints.print(note, markup=False, highlight=False, soft_wrap=True)
    _say_written(output)


def _say_written(path: Path) -> None:
    console.print(
        f"{path} is written, {path.stat().st_size / 1e6:.1f} MB",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def export_request(
    folder: Path, lifeline_fd: Annotated[int | None, typer.Option(hidden=True)] = None
) -> None:
    """Export what a request in a folder asks for; an engine does this by itself."""
    with sentences():
        settings = begin("export", lifeline_fd)

        from ml_backend.bootstrap.exports import export_for_engine

        export_for_engine(settings, folder)


def _with_sample(request: ExportRequest, settings: Settings, sample: Path) -> ExportRequest:
    from dataclasses import replace

    import numpy as np

    from ml_backend.bootstrap.images import build_decoder
    from ml_backend.service.file_prediction import local_file

    image = build_decoder(settings)(local_file(sample), plane=None, channels=None)
    content = io.BytesIO()
    np.save(content, image.pixels, allow_pickle=False)
    return replace(request, sample=content.getvalue())


def _author(text: str) -> Author:
    name, _, affiliation = text.partition(",")
    return Author(name=name.strip(), affiliation=affiliation.strip() or None)


def _uploader(text: str) -> Uploader:
    named = _MAIL.fullmatch(text)
    if named is None:
        return Uploader(email=text.strip())
    return Uploader(email=named["email"].strip(), name=named["name"].strip() or None)


def _citation(text: str) -> Citation:
    source = _SOURCE.search(text)
    if source is None:
        return Citation(text=text)
    words = text[: source.start()].strip().rstrip(",;") or text.strip()
    found = source[1].rstrip(".,;")
    is_address = found.lower().startswith("http")
    return Citation(
        text=words, doi=None if is_address else found, url=found if is_address else None
    )
