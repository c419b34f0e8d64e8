"""Files of models, on their way in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ml_backend.client.answers import path_of, read_answer
from ml_backend.client.arrays import encode_npy_text
from ml_backend.client.call import Call, Upload
from ml_backend.client.connection import Connection
from ml_backend.client.downloads import download
from ml_backend.client.model_info import ModelInfo
from ml_backend.errors import BadRequest

MODELS_PATH = "/api/v1/models"
EXPORT_FORMATS = ("bioimageio", "cellpose")

Owner = str | int
"""Whose a model is: a project's number or key, the name of a dataset, or "uploads"."""


class ModelFiles:
    """The part of `client.models` that moves files."""

    def __init__(self, connection: Connection, *, timeout_s: float) -> None:
        """Keep the connection.

        Args:
            connection: To the server.
            timeout_s: How long an export or an upload may take to be answered.
        """
        self._connection, self._timeout_s = connection, timeout_s

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
            query=owner_query(owner),
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
            query=owner_query(owner),
            is_repeatable=True,
        )


def owner_query(owner: Owner | None) -> dict[str, str | None]:
    """Return what names the owner of a model in a query."""
    return {"project": None if owner is None else str(owner)}
