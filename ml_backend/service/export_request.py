"""What a person says of a model that is to be packed: read from JSON and checked."""

from __future__ import annotations

import base64
import binascii
import re
import string
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from ml_backend.errors import BadRequest

MODEL_HEADER: Final = "X-Model"  # percent-encoded, of a request to the engine
NOTES_HEADER: Final = "X-Notes"  # of its answer, and of the one to the caller
MAX_SAMPLE_BYTES: Final = 64_000_000
MAX_BODY_BYTES: Final = MAX_SAMPLE_BYTES * 4 // 3 + 1_000_000  # base64 takes a third more
MAX_TEXT: Final = 1024  # characters; BioImage.IO takes no longer description
MAX_PEOPLE: Final = 100
NAME_LENGTHS: Final = (5, 128)
_NAME_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "_+- ()")
_EMAIL: Final = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s.,;<>]+")
_DOI: Final = re.compile(r"10\.\d{4,9}/\S+")
_ADDRESS: Final = re.compile(r"https?://[^\s/]+\S*")
_DOI_HOSTS: Final = ("https://doi.org/", "http://doi.org/", "https://dx.doi.org/", "doi:")


class ExportFormat(StrEnum):
    """What a model can be exported as."""

    BIOIMAGEIO = "bioimageio"
    CELLPOSE = "cellpose"


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who made a model."""

    name: str
    affiliation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Uploader:
    """Who hands a model in."""

    email: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Citation:
    """What is to be cited: a text, and a DOI or an address."""

    text: str
    doi: str | None = None
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is to be exported, and what is to be said of it."""

    model: str  # a name, or what else is resolved to a network
    format: ExportFormat = ExportFormat.BIOIMAGEIO
    title: str | None = None  # None = the model's name
    description: str = ""
    authors: tuple[Author, ...] = ()
    uploader: Uploader | None = None
    citations: tuple[Citation, ...] = ()
    licence: str | None = None  # None = that of the weights
    collection: str | None = None
    sample: bytes | None = field(default=None, repr=False)  # an NPY file; None = a made-up image


class _Person(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    affiliation: str | None = None


class _Uploader(msgspec.Struct, forbid_unknown_fields=True):
    email: str | None = None
    name: str | None = None


class _Citation(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    doi: str | None = None
    url: str | None = None


class ExportBody(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of a request; its fields are those of `ExportRequest`, as people write them."""

    format: str = ExportFormat.BIOIMAGEIO.value
    model_name: str | None = None
    description: str | None = None
    authors: list[_Person] | None = None
    uploader: _Uploader | None = None
    citation: list[_Citation] | None = None
    licence: str | None = None
    collection: str | None = None
    sample: str | None = None  # base64 of an NPY file


def read_export_request(model: str, content: bytes) -> ExportRequest:
    """Return what a JSON body asks for.

    Args:
        model: that it is about.
        content: JSON as `ExportBody` describes it.

    Raises:
        BadRequest: it is no such JSON, or something that is needed is missing or wrong.
    """
    try:
        body = msgspec.json.decode(content or b"{}", type=ExportBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The request is not as it must be: {error}.") from None
    if body.format not in list(ExportFormat):
        raise BadRequest(
            f"There is no format {body.format[:100]!r}; use {' or '.join(ExportFormat)}."
        )
    uploader = body.uploader
    return checked(
        ExportRequest(
            model=model,
            format=ExportFormat(body.format),
            title=body.model_name,
            description=body.description or "",
            authors=tuple(
                Author(name=person.name or "", affiliation=person.affiliation or None)
                for person in body.authors or ()
            ),
            uploader=None
            if uploader is None
            else Uploader(email=uploader.email or "", name=uploader.name or None),
            citations=tuple(
                Citation(text=one.text, doi=one.doi or None, url=one.url or None)
                for one in body.citation or ()
            ),
            licence=body.licence,
            collection=body.collection or None,
            sample=None if body.sample is None else _decoded(body.sample),
        )
    )


def write_export_request(request: ExportRequest) -> bytes:
    """Return the JSON that `read_export_request` makes the same of."""
    uploader = request.uploader
    return msgspec.json.encode(
        ExportBody(
            format=request.format.value,
            model_name=request.title,
            description=request.description,
            authors=[
                _Person(name=one.name, affiliation=one.affiliation) for one in request.authors
            ],
            uploader=None
            if uploader is None
            else _Uploader(email=uploader.email, name=uploader.name),
            citation=[
                _Citation(text=one.text, doi=one.doi, url=one.url) for one in request.citations
            ],
            licence=request.licence,
            collection=request.collection,
            sample=None
            if request.sample is None
            else base64.b64encode(request.sample).decode("ascii"),
        )
    )


def checked(request: ExportRequest) -> ExportRequest:
    """Return a request, its texts without what surrounds them, if all that it says will do.

    Raises:
        BadRequest: something is missing or wrong.
    """
    tidy = ExportRequest(
        model=request.model,
        format=request.format,
        title=None if request.title is None else _title(request.title),
        description=_text(request.description, "description"),
        authors=tuple(_author(one) for one in request.authors),
        uploader=None if request.uploader is None else _uploader(request.uploader),
        citations=tuple(_citation(one) for one in request.citations),
        licence=request.licence,
        collection=None
        if request.collection is None
        else _text(request.collection, "collection", 100),
        sample=request.sample,
    )
    if max(len(tidy.authors), len(tidy.citations)) > MAX_PEOPLE:
        raise BadRequest(f"More than {MAX_PEOPLE} authors or citations are too many.")
    if tidy.sample is not None and len(tidy.sample) > MAX_SAMPLE_BYTES:
        raise BadRequest(
            f"The sample has more than {MAX_SAMPLE_BYTES // 1_000_000} MB; cut out a smaller part."
        )
    if tidy.format is ExportFormat.BIOIMAGEIO and not tidy.authors:
        raise BadRequest(
            "A BioImage.IO package names its authors; give at least one, with a name (authors)."
        )
    return tidy


def title_of(name: str) -> str:
    """Return a name as BioImage.IO takes it: long enough, without other characters."""
    kept = "".join(character if character in _NAME_CHARACTERS else "-" for character in name)
    shortest, longest = NAME_LENGTHS
    title = kept[:longest].strip() or "model"
    return title if len(title) >= shortest else f"model {title}"


def _title(title: str) -> str:
    shortest, longest = NAME_LENGTHS
    tidy = " ".join(title.split())
    if not shortest <= len(tidy) <= longest or not set(tidy) <= _NAME_CHARACTERS:
        raise BadRequest(
            f"The model's name {title[:200]!r} must have {shortest} to {longest} letters, digits, "
            "spaces and _ + - ( ) only, as BioImage.IO takes no others."
        )
    return tidy


def _text(text: str, what: str, longest: int = MAX_TEXT) -> str:
    tidy = text.strip()
    if len(tidy) > longest or not all(letter.isprintable() or letter in "\n\t" for letter in tidy):
        raise BadRequest(f"The {what} must be a text of at most {longest} characters.")
    return tidy


def _author(author: Author) -> Author:
    name = _text(author.name, "name of an author", 200)
    if not name or "/" in name or "\\" in name:
        raise BadRequest("Each author needs a name, without slashes (authors).")
    affiliation = _text(author.affiliation or "", "affiliation of an author", 500)
    return Author(name=name, affiliation=affiliation or None)


def _uploader(uploader: Uploader) -> Uploader:
    email = uploader.email.strip()
    if len(email) > 254 or not email.isascii() or not _EMAIL.fullmatch(email):
        raise BadRequest(
            f"The uploader's address {email[:200]!r} is no e-mail address (uploader.email)."
        )
    name = _text(uploader.name or "", "uploader's name", 200)
    return Uploader(email=email, name=name or None)


def _citation(citation: Citation) -> Citation:
    text = _text(citation.text, "text of a citation")
    doi = (citation.doi or "").strip()
    for host in _DOI_HOSTS:
        doi = doi.removeprefix(host)
    url = (citation.url or "").strip()
    if not text or not (doi or url):
        raise BadRequest("Each citation needs a text and a doi or url.")
    if doi and not _DOI.fullmatch(doi):
        raise BadRequest(f"{doi[:200]!r} is no DOI; one begins with 10. and has a slash.")
    if url and not (_ADDRESS.fullmatch(url) and len(url) <= 2000):
        raise BadRequest(f"{url[:200]!r} is no address of a citation; it begins with https://.")
    return Citation(text=text, doi=doi or None, url=url or None)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("The sample must be an NPY file as base64 text.") from None
