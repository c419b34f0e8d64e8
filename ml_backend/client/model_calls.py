"""`client.models`: networks that can be asked, served, trained further, exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ml_backend.client.activation_info import ActivationInfo
from ml_backend.client.answers import path_of, read_answer
from ml_backend.client.arrays import encode_npy_text
from ml_backend.client.call import Call, Upload
from ml_backend.client.connection import Connection
from ml_backend.client.downloads import download
from ml_backend.client.model_info import ModelInfo
from ml_backend.client.pages import PAGE_SIZE, all_pages
from ml_backend.errors import BadRequest

MODELS_PATH = "/api/v1/models"
ACTIVATIONS_PATH = "/api/v1/activations"
EXPORT_FORMATS = ("bioimageio", "cellpose")

Project = str | int
"""A project's number, "<id>.<created_at>" or key."""

Owner = str | int
"""Whose a model is: a project as above, the name of a dataset, or "uploads"."""


class ModelCalls:
    """Looks at models, changes which are served, and moves them in and out."""

    def __init__(self, connection: Connection, *, timeout_s: float) -> None:
        """Keep the connection.

        Args:
            connection: To the server.
            timeout_s: How long an export or an upload may take to be answered.
        """
        self._connection, self._timeout_s = connection, timeout_s

    def find(
        self,
        *,
        kind: str | None = None,
        project: Project | None = None,
        dataset: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[ModelInfo]:
        """Yield models, asking for a page at a time.

        Args:
            kind: Only built_in, published, candidate, refused, archived or uploaded.
            project: Only those of this project.
            dataset: Only those that were trained on this dataset.
            page_size: Models in one request.
        """
        query = {"kind": kind, "project": _named(project), "dataset": dataset}
        return all_pages(self._connection, MODELS_PATH, query, ModelInfo, page_size=page_size)

    def get(self, name: str, *, owner: Owner | None = None) -> ModelInfo:
        """Return a model.

        Args:
            name: Of the model.
            owner: Whose it is, where several have one of that name.

        Raises:
            NotFound: there is no such model.
        """
        return read_answer(self._connection.ask(self._look(name, owner=owner)), ModelInfo)

    def activate(
        self,
        name: str,
        *,
        project: Project | None = None,
        controls: Sequence[str] | None = None,
        owner: Owner | None = None,
    ) -> ActivationInfo:
        """Ask for a model to be served; `activations` tells how far that is.

        Args:
            name: Of the model.
            project: That is to serve it; None = the one it was trained for.
            controls: Of the label config, that it is to feed; None = those it was trained for.
            owner: Whose it is, where several have one of that name.

        Raises:
            NotFound: there is no such model or project.
            Conflict: it cannot be served.
            Forbidden: the token is no admin's.
        """
        body: dict[str, Any] = {}
        if project is not None:
            body["project"] = project
        if controls is not None:
            body["controls"] = list(controls)
        content = self._post(MODELS_PATH + path_of(name, "activate"), body, owner=owner)
        return read_answer(content, ActivationInfo)

    def rollback(self, project: Project, *, to_base: bool = False) -> ActivationInfo:
        """Ask for what a project served before the last change.

        Args:
            project: That is to serve it.
            to_base: Whether to go back to what the label config asks for, whatever was served.

        Raises:
            NotFound: there is no such project.
            Conflict: there is nothing to go back to, or a change is under way.
            Forbidden: the token is no admin's.
        """
        body: dict[str, Any] = {"project": project}
        if to_base:
            body["to_base"] = True
        content = self._post(f"{MODELS_PATH}/rollback", body)
        return read_answer(content, ActivationInfo)

    def activations(
        self, *, project: Project | None = None, page_size: int = PAGE_SIZE
    ) -> Iterator[ActivationInfo]:
        """Yield the changes of what a project or all serve, newest first in each."""
        query = {"project": _named(project)}
        return all_pages(
            self._connection, ACTIVATIONS_PATH, query, ActivationInfo, page_size=page_size
        )

    def archive(self, name: str, *, owner: Owner | None = None) -> ModelInfo:
        """Put a model away: it is listed and served no more.

        Raises:
            NotFound: there is no such model.
            Conflict: it is served, or about to be.
            Forbidden: the token is no admin's.
        """
        call = Call(
            method="POST",
            path=MODELS_PATH + path_of(name, "archive"),
            query={"project": _named(owner)},
        )
        return read_answer(self._connection.ask(call), ModelInfo)

    def delete(self, name: str, *, owner: Owner | None = None) -> None:
        """Delete a model with its weights.

        Raises:
            NotFound: there is no such model.
            Conflict: it is served, or about to be, or a session starts from it.
            Forbidden: the token is no admin's.
        """
        path = MODELS_PATH + path_of(name)
        self._connection.ask(Call(method="DELETE", path=path, query={"project": _named(owner)}))

    def download(
        self,
        name: str,
        output: Path | str,
        *,
        owner: Owner | None = None,
        may_replace: bool = True,
    ) -> Path:
        """Write the weights of a model to a file or into a folder, and return the file's path.

        Args:
            name: Of the model.
            output: The file, or a folder for it.
            owner: Whose it is, where several have one of that name.
            may_replace: Whether a file that is there already may be replaced.

        Raises:
            NotFound: there is no such model.
            BadRequest: it cannot be written there, or is there already.
            ServerError: it arrived damaged.
        """
        return download(
            self._connection,
            self._look(name, "weights", owner=owner),
            output,
            default_name="weights.safetensors",
            may_replace=may_replace,
        )

    def upload(
        self,
        file: Path | str,
        *,
        name: str | None = None,
        licence: str | None = None,
        description: str | None = None,
        diameter: float | None = None,
    ) -> ModelInfo:
        """Give the server a checkpoint of your own; it is checked and never unpickled.

        Args:
            file: A .safetensors or .pt checkpoint, or a .zip of a BioImage.IO package.
            name: That it is to have, of small letters, digits and dashes; None = the file's.
            licence: Of the weights, such as CC-BY-4.0; None = unknown.
            description: A sentence.
            diameter: Of the objects that it was trained on, pixels; None = not known.

        Raises:
            CheckpointInvalid: it is damaged, or of an architecture that is not known.
            Conflict: there is a model of that name.
            Forbidden: the token is no admin's.
        """
        path = Path(file).expanduser()
        fields = {"name": name, "licence": licence, "description": description}
        fields["diameter"] = None if diameter is None else f"{diameter:g}"
        call = Call(
            method="POST",
            path=MODELS_PATH,
            form={field: value for field, value in fields.items() if value is not None},
            uploads=(Upload(field="file", name=path.name, path=path),),
            timeout_s=self._timeout_s,
        )
        return read_answer(self._connection.ask(call), ModelInfo)

    def pictures(
        self, name: str, folder: Path | str, *, owner: Owner | None = None
    ) -> tuple[Path, ...]:
        """Write the pictures of a model that learned classes into a folder; return their paths.

        Raises:
            NotFound: there is no such model, or it has no pictures.
            BadRequest: they cannot be written there.
        """
        content = self._connection.ask(self._look(name, "pictures", owner=owner))
        files = read_answer(content, dict[str, tuple[str, ...]]).get("items", ())
        target = Path(folder).expanduser()
        return tuple(
            download(
                self._connection,
                self._look(name, "pictures", file, owner=owner),
                target / Path(file).name,
                default_name="picture.png",
            )
            for file in files
        )

    def export(
        self,
        name: str,
        output: Path | str,
        *,
        format: str = "bioimageio",
        owner: Owner | None = None,
        model_name: str | None = None,
        description: str | None = None,
        authors: Sequence[Mapping[str, str]] = (),
        uploader: Mapping[str, str] | None = None,
        citation: Sequence[Mapping[str, str]] = (),
        licence: str | None = None,
        collection: str | None = None,
        sample: npt.ArrayLike | None = None,
    ) -> Path:
        """Write a model as a file that other programs open, and return the file's path.

        Args:
            name: Of the model.
            output: The file, or a folder for it.
            format: "bioimageio" for a BioImage.IO package, "cellpose" for a checkpoint of Cellpose.
            owner: Whose it is, where several have one of that name.
            model_name: That the package is to have; None = `name`.
            description: A sentence for the package.
            authors: Each with `name`, and perhaps `affiliation`; a package needs one.
            uploader: With `email`, and perhaps `name`.
            citation: Each with `text`, and `doi` or `url`.
            licence: Of the package; None = that of the weights.
            collection: That the package is to belong to.
            sample: (Y, X) or (Y, X, C), an image that the package is tested with; None = one of
                the server's own.

        Raises:
            NotFound: there is no such model.
            BadRequest: it cannot be written in this format, or there.
        """
        if format not in EXPORT_FORMATS:
            formats = " or ".join(EXPORT_FORMATS)
            raise BadRequest(f"Models are not exported as {format!r}; choose {formats}.")
        body: dict[str, Any] = {"format": format}
        for field, value in (
            ("model_name", model_name),
            ("description", description),
            ("authors", [dict(author) for author in authors] or None),
            ("uploader", uploader),
            ("citation", [dict(source) for source in citation] or None),
            ("licence", licence),
            ("collection", collection),
            ("sample", None if sample is None else encode_npy_text(sample)),
        ):
            if value is not None:
                body[field] = value
        call = Call(
            method="POST",
            path=MODELS_PATH + path_of(name, "export"),
            query={"project": _named(owner)},
            body=body,
            is_repeatable=True,  # it changes nothing on the server
            timeout_s=self._timeout_s,
        )
        ending = ".zip" if format == "bioimageio" else ""
        return download(self._connection, call, output, default_name=f"model{ending}")

    def _look(self, *names: str, owner: Owner | None) -> Call:
        return Call(
            method="GET",
            path=MODELS_PATH + path_of(*names),
            query={"project": _named(owner)},
            is_repeatable=True,
        )

    def _post(self, path: str, body: Mapping[str, Any], *, owner: Owner | None = None) -> bytes:
        query = {"project": _named(owner)}
        return self._connection.ask(Call(method="POST", path=path, query=query, body=body))


def _named(project: Project | None) -> str | None:
    return None if project is None else str(project)
