"""Title and project show what is served, whatever pages, people and other backends do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend
from ml_backend.service.connect import FIRST_TITLE
from ml_backend.service.swap import flip, settle
from tests.fake_rows import FakeRows, backend_row

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)
OLD, NEW = "cells-1-aaaaaaaa", "cells-p1-v1-bbbbbbbb"
KNOWN = [NEW, OLD]


@pytest.fixture
def rows() -> FakeRows:
    return FakeRows(key=PROJECT, version=OLD, setup=lambda url: NEW)


def look(rows: FakeRows, *, insist: bool = False) -> bool:
    return settle(rows, PROJECT, NEW, KNOWN, strangers=set(), insist=insist)


def test_a_project_is_flipped_to_stored_predictions_without_a_call_to_anybody(
    rows: FakeRows,
) -> None:
    rows.predictions = [(1, NEW)]

    assert flip(rows, PROJECT, NEW, KNOWN)

    assert rows.asked == [f"project {NEW}"]
    assert rows.shown == (OLD, NEW)


def test_a_flipped_project_is_not_flipped_again(rows: FakeRows) -> None:
    rows.predictions = [(1, NEW)]
    flip(rows, PROJECT, NEW, KNOWN)

    assert flip(rows, PROJECT, NEW, KNOWN)
    assert rows.asked == [f"project {NEW}"]


@pytest.mark.parametrize("chosen", ["another backend", "imported by hand"])
def test_predictions_that_a_person_chose_stay_shown(rows: FakeRows, chosen: str) -> None:
    rows.predictions = [(1, NEW)]
    rows.info = replace(rows.info, model_version=chosen)

    assert not flip(rows, PROJECT, NEW, KNOWN)
    look(rows, insist=True)

    assert rows.shown == (NEW, chosen)


def test_predictions_that_are_switched_off_stay_off(rows: FakeRows) -> None:
    rows.predictions = [(1, NEW)]
    rows.info = replace(rows.info, model_version="", shows_predictions=False)

    assert not flip(rows, PROJECT, NEW, KNOWN)
    look(rows)

    assert rows.shown == (NEW, "")


def test_a_version_that_was_lost_by_switching_off_and_on_comes_back(rows: FakeRows) -> None:
    rows.info = replace(rows.info, model_version="")

    look(rows)

    assert rows.shown == (NEW, NEW)


def test_a_title_that_a_page_put_back_is_set_again(rows: FakeRows) -> None:
    rows.info = replace(rows.info, model_version=NEW)
    rows.lost_titles = 1

    assert not look(rows)
    assert not look(rows)
    assert look(rows)

    assert rows.shown == (NEW, NEW)
    assert rows.asked == [f"title {NEW}"] * 2


def test_the_project_follows_the_title_and_is_not_set_twice(rows: FakeRows) -> None:
    assert not look(rows)

    assert rows.asked == [f"title {NEW}"]
    assert rows.shown == (NEW, NEW)


def test_an_old_version_in_the_settings_page_is_repaired(rows: FakeRows) -> None:
    look(rows)
    rows.predictions = [(1, OLD)]
    rows.update_project(1, model_version=OLD)

    assert not look(rows)
    assert rows.shown == (NEW, NEW)


def test_what_is_right_is_left_alone(rows: FakeRows) -> None:
    look(rows)
    rows.asked.clear()

    assert look(rows)
    assert rows.asked == []


def test_a_title_of_a_persons_own_is_kept_until_the_next_swap(rows: FakeRows) -> None:
    rows.rows = [replace(backend_row(1, "My cells"), model_version=NEW)]
    rows.info = replace(rows.info, model_version="My cells")

    assert look(rows)
    assert rows.shown == ("My cells", "My cells")
    assert not look(rows, insist=True)
    assert rows.shown == (NEW, NEW)


def test_a_title_of_a_persons_own_gives_way_when_the_project_shows_stored_rows(
    rows: FakeRows,
) -> None:
    # an engine was killed between the flip and the title: no new task would be predicted
    rows.rows = [replace(backend_row(1, "My cells"), model_version=NEW)]
    rows.info = replace(rows.info, model_version=NEW)

    assert not look(rows)
    assert rows.shown == (NEW, NEW)


def test_the_first_title_of_connect_gives_way(rows: FakeRows) -> None:
    rows.rows = [replace(backend_row(1, FIRST_TITLE), model_version=NEW)]
    rows.info = replace(rows.info, model_version=FIRST_TITLE)

    look(rows)

    assert rows.shown == (NEW, NEW)


def test_another_backend_with_the_same_base_network_gets_its_title_back(rows: FakeRows) -> None:
    rows.rows.append(backend_row(2, OLD, url="http://other:9090"))
    rows.setup = lambda url: NEW if "ours" in url else OLD
    strangers: set[int] = set()

    settle(rows, PROJECT, NEW, KNOWN, strangers=strangers)
    rows.asked.clear()
    again = settle(rows, PROJECT, NEW, KNOWN, strangers=strangers)

    assert [row.title for row in rows.rows] == [NEW, OLD]
    assert rows.info.model_version == NEW
    assert again
    assert rows.asked == []


def test_a_backend_of_another_program_is_not_touched(rows: FakeRows) -> None:
    rows.rows.append(backend_row(2, "something else", url="http://other:9090"))

    look(rows, insist=True)

    assert [row.title for row in rows.rows] == [NEW, "something else"]


def test_a_project_that_was_made_again_under_the_number_is_not_touched(rows: FakeRows) -> None:
    rows.info = replace(rows.info, created_at=6)
    rows.predictions = [(1, NEW)]

    assert not flip(rows, PROJECT, NEW, KNOWN)
    assert look(rows, insist=True)
    assert rows.asked == []


class DeadRows(FakeRows):
    """Refuses to change a backend whose address leads nowhere, as the real one does."""

    def update_backend(
        self, backend_id: int, *, project_id: int, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend:
        if "gone" in url:
            raise LabelStudioError("ML backend health check failed", status=400)
        return super().update_backend(
            backend_id, project_id=project_id, url=url, title=title, auth=auth
        )


def test_a_row_with_an_address_we_had_before_does_not_hold_up_the_other() -> None:
    rows = DeadRows(key=PROJECT, version=OLD, setup=lambda url: NEW)
    rows.rows = [backend_row(1, OLD, url="http://gone:9090"), backend_row(2, OLD)]

    look(rows)

    assert [row.title for row in rows.rows] == [OLD, NEW]


def test_a_backend_that_label_studio_cannot_reach_is_an_error_to_try_again() -> None:
    rows = DeadRows(key=PROJECT, version=OLD, setup=lambda url: NEW)
    rows.rows = [backend_row(1, OLD, url="http://gone:9090")]

    with pytest.raises(LabelStudioError, match="health check"):
        look(rows)


def test_the_password_that_label_studio_keeps_is_kept() -> None:
    given: list[BasicAuth | None] = []

    class Noting(FakeRows):
        def update_backend(
            self, backend_id: int, *, project_id: int, url: str, title: str, auth: BasicAuth | None
        ) -> ConnectedBackend:
            given.append(auth)
            return super().update_backend(
                backend_id, project_id=project_id, url=url, title=title, auth=auth
            )

    rows = Noting(key=PROJECT, version=OLD, setup=lambda url: NEW)
    rows.rows = [replace(backend_row(1, OLD), basic_auth_user="ls")]

    look(rows)

    assert given == [BasicAuth(user="ls", password="")]
