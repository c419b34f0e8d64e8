"""Lists that a server gives page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ml_backend.client.answers import read_answer
from ml_backend.client.call import Call, Parameter
from ml_backend.client.connection import Connection
from ml_backend.errors import ServerError

PAGE_SIZE = 100

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Item]):
    """A part of a list."""

    items: tuple[Item, ...]
    next: str | None = None  # what the next page comes after; None = this is the last


def read_page(content: bytes, kind: type[Item]) -> Page[Item]:
    """Return the page that an answer, JSON, holds.

    Raises:
        ServerError: it is something else.
    """
    return read_answer(content, Page[kind])  # type: ignore[valid-type]  # known at run time


def all_pages(
    connection: Connection,
    path: str,
    query: Mapping[str, Parameter | None],
    kind: type[Item],
    *,
    page_size: int = PAGE_SIZE,
) -> Iterator[Item]:
    """Yield the items of a list, asking for the next page when it is needed.

    Args:
        connection: To the server.
        path: Of the list.
        query: What filters it.
        kind: Of its items.
        page_size: Items in one request.

    Raises:
        BackendError: what the server refuses with.
    """
    after: str | None = None
    while True:
        call = Call(
            method="GET",
            path=path,
            query={**query, "limit": page_size, "after": after},
            is_repeatable=True,
        )
        page = read_page(connection.ask(call), kind)
        yield from page.items
        if page.next is None:
            return
        if page.next == after:
            raise ServerError(f"The list {path} does not get on; update the server.")
        after = page.next
