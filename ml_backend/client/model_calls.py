"""`client.models`: networks that can be asked, served, trained further, exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_backend.client.activation_info import ActivationInfo
from ml_backend.client.answers import path_of, read_answer
from ml_backend.client.call import Call
from ml_backend.client.model_files import MODELS_PATH, ModelFiles, Owner, owner_query
from ml_backend.client.model_info import ModelInfo
from ml_backend.client.pages import PAGE_SIZE, all_pages

ACTIVATIONS_PATH = "/api/v1/activations"

Project = str | int
"""A project's number, "<id>.<created_at>" or key."""


class ModelCalls(ModelFiles):
    """Looks at models, changes which are served, and moves them in and out."""

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
        query = {"kind": kind, **owner_query(project), "dataset": dataset}
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
        query = owner_query(project)
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
            query=owner_query(owner),
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
        self._connection.ask(Call(method="DELETE", path=path, query=owner_query(owner)))

    def _post(self, path: str, body: Mapping[str, Any], *, owner: Owner | None = None) -> bytes:
        query = owner_query(owner)
        return self._connection.ask(Call(method="POST", path=path, query=query, body=body))
