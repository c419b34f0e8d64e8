"""Server-sent events are put together from whatever pieces they arrive in."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.client.server_sent import MAX_EVENT_BYTES, EventReader, ServerSent
from ml_backend.errors import ServerError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20)


def read(*pieces: bytes) -> list[ServerSent]:
    """Return the events in pieces."""
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_of_the_standard_are_read(end: bytes) -> None:
    lines = [
        *(b": a ping", b"", b"event: point", b"id: 7", b'data: {"epoch":1}', b""),
        *(b"data:one", b"data:  two", b"unknown: field", b"", b"event: nothing", b"", b"data", b""),
    ]

    assert read(end.join(lines) + end) == [
        ServerSent(kind="point", data='{"epoch":1}', id="7"),
        ServerSent(kind="message", data="one\n two", id="7"),
        ServerSent(kind="message", data="", id="7"),
    ]


@given(
    events=st.lists(st.tuples(st.sampled_from(["session", "point", "end"]), TEXT), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_pieces_make_no_difference(
    events: list[tuple[str, str]], end: str, cuts: list[int]
) -> None:
    text = "".join(
        f"id: {number}{end}event: {kind}{end}data: {data}{end}{end}"
        for number, (kind, data) in enumerate(events)
    ).encode()
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]

    found = read(*pieces)

    assert [(event.kind, event.data, event.id) for event in found] == [
        (kind, data, str(number)) for number, (kind, data) in enumerate(events)
    ]


def test_the_pause_that_the_server_wants_is_noted() -> None:
    reader = EventReader()

    assert list(reader.feed(b"retry: 2500\nretry: soon\n\n")) == []
    assert reader.retry_s == 2.5


def test_an_event_without_an_end_is_given_up() -> None:
    line = b"data: " + b"x" * 100_000 + b"\n"

    with pytest.raises(ServerError, match="does not end"):
        read(*[line] * (MAX_EVENT_BYTES // 100_000 + 1), b"data: more")


def test_a_line_without_an_end_is_given_up() -> None:
    with pytest.raises(ServerError, match="does not end"):
        read(*[b"x" * 100_000] * (MAX_EVENT_BYTES // 100_000 + 1))
