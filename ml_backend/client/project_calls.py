"""`client.projects`: Label Studio projects, and what people and networks drew in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ml_backend.client.answers import path_of
from ml_backend.client.call import Call
from ml_backend.client.connection import Connection
from ml_backend.client.downloads import download
from ml_backend.client.pages import PAGE_SIZE, all_pages
from ml_backend.client.project import ConnectedProject

PROJECTS_PATH = "/api/v1/projects"


class ProjectCalls:
    """Looks at projects and exports them."""

    def __init__(self, connection: Connection, *, timeout_s: float) -> None:
        """Keep the connection.

        Args:
            connection: To the server.
            timeout_s: How long an export may take to begin.
        """
        self._connection, self._timeout_s = connection, timeout_s

    def find(self, *, page_size: int = PAGE_SIZE) -> Iterator[ConnectedProject]:
        """Yield the projects that were connected, asking for a page at a time."""
        return all_pages(self._connection, PROJECTS_PATH, {}, ConnectedProject, page_size=page_size)

    def export(
        self,
        project: str | int,
        output: Path | str,
        *,
        what: str = "annotations",
        format: str = "labels",
        images: bool = False,
        every: bool = False,
        version: str | None = None,
    ) -> Path:
        """Write what was drawn in a project to a zip file and return its path.

        Args:
            project: Number or key of the project.
            output: The file, or a folder for it.
            what: "annotations" of people, or "predictions".
            format: "labels" for label images as TIFF, "coco" for one COCO file.
            images: Whether to add the images' files.
            every: Whether to write each person's annotation of a task, not just what counts.
            version: Of the predictions; None = what is served.

        Raises:
            NotFound: there is no such project.
            BadRequest: it cannot be written there.
        """
        call = Call(
            method="GET",
            path=PROJECTS_PATH + path_of(str(project), "export"),
            query={
                "what": what,
                "format": format,
                "images": "true" if images else None,
                "every": "true" if every else None,
                "version": version,
            },
            is_repeatable=True,
            timeout_s=self._timeout_s,
        )
        return download(self._connection, call, output, default_name=f"{what}.zip")
