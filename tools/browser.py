"""A person's browser on Label Studio: headless Chromium, for tests and for the README's picture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tools.label_studio_server import EMAIL, PASSWORD

if TYPE_CHECKING:
    from playwright.sync_api import Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--no-sandbox",  # it runs as root in containers, and sees nothing but our own servers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DRAWN_WITHIN_MS = 120_000


def find_browser() -> str | None:
    """Return the path of an installed Chromium, None when there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@contextmanager
def open_page(program: str, *, width: int = 1400, height: int = 900) -> Iterator[Page]:
    """Yield an empty page in a new browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(DRAWN_WITHIN_MS)
            yield page
        finally:
            browser.close()


def log_in(page: Page, url: str) -> None:
    """Log in through the form."""
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", EMAIL)
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/user/login" not in address)


def open_task(page: Page, url: str, project: int, task: int) -> int:
    """Open a task in the Data Manager and wait until it is drawn; return how many regions are."""
    page.goto(f"{url}/projects/{project}/data?task={task}")
    page.wait_for_function("window.Htx?.annotationStore?.selected?.regions?.length > 0")
    # two frames: the regions are on the canvas, not only in the store
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return int(page.evaluate("window.Htx.annotationStore.selected.regions.length"))


def submit(page: Page, task: int) -> int:
    """Press Submit; return the status of Label Studio's answer."""
    with page.expect_response(
        lambda answer: (
            answer.request.method == "POST" and f"/api/tasks/{task}/annotations" in answer.url
        )
    ) as submitted:
        page.get_by_role("button", name="Submit").first.click()
    return int(submitted.value.status)


def save_picture(page: Page, file: Path) -> None:
    """Write what the page shows as a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=file)
