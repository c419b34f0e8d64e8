"""`client.datasets`: folders and archives that sessions learned from."""

from __future__ import annotations

from collections.abc import Iterator

from ml_backend.client.answers import path_of
from ml_backend.client.connection import Connection
from ml_backend.client.dataset import Dataset
from ml_backend.client.model_info import ModelInfo
from ml_backend.client.pages import PAGE_SIZE, all_pages

DATASETS_PATH = "/api/v1/datasets"


class DatasetCalls:
    """Looks at datasets and what came of them."""

    def __init__(self, connection: Connection) -> None:
        """Keep the connection."""
        self._connection = connection

    def find(self, *, page_size: int = PAGE_SIZE) -> Iterator[Dataset]:
        """Yield the datasets that sessions were asked for with, asking for a page at a time."""
        return all_pages(self._connection, DATASETS_PATH, {}, Dataset, page_size=page_size)

    def models(self, name: str, *, page_size: int = PAGE_SIZE) -> Iterator[ModelInfo]:
        """Yield the models that were trained on a dataset.

        Raises:
            NotFound: there is no such dataset.
        """
        path = DATASETS_PATH + path_of(name, "models")
        return all_pages(self._connection, path, {}, ModelInfo, page_size=page_size)
