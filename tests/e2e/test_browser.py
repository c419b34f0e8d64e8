"""What a person sees: the regions are drawn, and Submit works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.site import Site, write_nuclei
from tools.browser import find_browser, log_in, open_page, open_task, save_picture, submit

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts"


@pytest.fixture(scope="module")
def page(site: Site) -> Iterator[Page]:
    """A browser that is logged in."""
    program = find_browser()
    if program is None:
        pytest.skip("Chromium is not installed: `make test` does it as root on Debian")
    with open_page(program) as opened:
        log_in(opened, site.label_studio.url)
        yield opened


@pytest.mark.parametrize(
    "config", ["polygons.xml", "brush.xml", "bitmask.xml", "rectangles.xml", "ellipses.xml"]
)
def test_every_cell_is_drawn_and_can_be_submitted(
    site: Site, page: Page, tmp_path: Path, config: str
) -> None:
    project = site.make_project(write_nuclei(tmp_path, 1, side=256, cells=14), config)
    site.connect(project)
    (task,) = site.user.task_ids(project)
    (prediction,) = site.user.open_task(project, task)["predictions"]
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))

    drawn = open_task(page, site.label_studio.url, project, task)
    save_picture(page, ARTIFACTS / f"browser-{Path(config).stem}.png")
    status = submit(page, task)

    assert drawn == len(prediction["result"]) >= 8
    assert status == 201
    assert complaints == []
    (annotation,) = site.user.open_task(project, task)["annotations"]
    assert len(annotation["result"]) == drawn
