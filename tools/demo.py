"""`make demo`: our backend and a real Label Studio with sample images, connected and predicted.

With --check nobody is needed: it asserts that every task holds a valid prediction of the version
that /setup reports, and exits with 0 or 1.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.panel import Panel
from rich.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # started as a script; `tools` is not installed

from ml_backend.errors import BackendError  # noqa: E402 - after the path is set
from ml_backend.labelstudio.client import LabelStudioClient  # noqa: E402
from ml_backend.service.checks import Status  # noqa: E402
from ml_backend.service.connect import BackendAddress, connect  # noqa: E402
from tools.demo_backend import DemoBackend  # noqa: E402
from tools.demo_check import check_predictions  # noqa: E402
from tools.demo_samples import label_config, write_samples  # noqa: E402
from tools.label_studio_server import (  # noqa: E402
    EMAIL,
    PASSWORD,
    STATE,
    LabelStudioServer,
    find_label_studio,
    free_port,
    read_accounts,
    shared_seed,
)
from tools.label_studio_user import LabelStudioUser  # noqa: E402

TITLE = "Cells"
PREDICTED_WITHIN_S = 900.0
ASK_AGAIN_S = 120.0  # a batch that takes longer than Label Studio waits is delivered meanwhile
MARKS = {Status.OK: "[green]ok[/]", Status.WARNING: "[yellow]!![/]", Status.FAILED: "[red]no[/]"}

console = Console(highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="check the result and exit")
    parser.add_argument("--token", choices=("pat", "legacy"), default="pat", help="kind of API key")
    parser.add_argument("--port", type=int, default=8080, help="Label Studio's, if it is free")
    parser.add_argument("--picture", type=Path, help="take a picture of Label Studio and exit")
    parser.add_argument("--keep", action="store_true", help="go on with the data of last time")
    options = parser.parse_args()
    # SIGINT too: started in the background of a script, it would be ignored
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return run(options)
    except KeyboardInterrupt:
        console.print("Everything is stopped.")
        return 130 if options.check else 0
    except (DemoError, BackendError, RuntimeError, httpx.HTTPError) as error:
        console.print(f"[bold red]error:[/] {error}", soft_wrap=True)
        return 1


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run(options: argparse.Namespace) -> int:
    """Start everything, connect it, retrieve predictions; then check them or wait for Ctrl-C."""
    program = find_label_studio()
    if program is None:
        raise DemoError("Label Studio is not installed; start the demo with `make demo`.")
    with ExitStack() as stack:
        folder = stack.enter_context(data_folder(keep=options.keep))
        with console.status("Preparing Label Studio's tables (the first time only)"):
            seed = shared_seed(program)
        label_studio = LabelStudioServer(
            program, folder / "label-studio", port=free_port(options.port), seed=seed
        )
        accounts = read_accounts(seed)
        personal = options.token == "pat"  # noqa: S105 - a kind of token, not one
        key = accounts.personal_access_token if personal else accounts.legacy_token
        backend = DemoBackend(
            folder / "backend",
            label_studio_url=label_studio.url,
            api_key=key,
            webhook_secret=secrets.token_urlsafe(24),
        )
        with console.status("Starting Label Studio and the backend"):
            stack.enter_context(backend)
            stack.enter_context(label_studio)
            backend.wait_until_up()
        console.print(
            f"Label Studio runs at {label_studio.url}, the backend at {backend.url}", soft_wrap=True
        )
        user = LabelStudioUser(stack.enter_context(closing(label_studio.session())))
        user.allow_legacy_tokens(not personal)
        client = LabelStudioClient(label_studio.url, key)
        project = find_or_make_project(client, user, folder / "samples")
        for row in client.backends(project):  # with --keep: last time's, perhaps on another port
            if row.url != backend.url:
                user.remove_backend(row.id)
        version = connect_backend(client, project, backend)
        predict_all(client, user, project, version)
        if options.picture:
            take_picture(label_studio, user, project, options.picture)
            return 0
        if options.check:
            return 0 if check_predictions(console, user, project, version) else 1
        show_address(label_studio, project)
        wait_for_the_end(label_studio, backend)
    return 0


@contextmanager
def data_folder(*, keep: bool) -> Iterator[Path]:
    """Yield a folder for everything that this run makes; without `keep` it goes afterwards."""
    if keep:
        folder = STATE / "kept"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    for old in STATE.glob("run-*"):  # of a demo that was killed
        if not _is_alive(int(old.name.removeprefix("run-"))):
            shutil.rmtree(old, ignore_errors=True)
    folder = STATE / f"run-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find_or_make_project(client: LabelStudioClient, user: LabelStudioUser, folder: Path) -> int:
    """Return the number of the demo's project, made with its images when it is missing."""
    for project in client.projects():
        if project.title == TITLE and project.task_count:
            return project.id
    with console.status("Making sample images and uploading them"):
        files = write_samples(folder)
        number = user.create_project(TITLE, label_config())
        user.upload(number, files)
    console.print(f"Project {number} has {len(files)} images")
    return number


def connect_backend(client: LabelStudioClient, project: int, backend: DemoBackend) -> str:
    """Connect the backend as `ml-backend connect` does; return the version of its /setup."""
    address = BackendAddress(url=backend.url, webhook_secret=backend.webhook_secret)
    report = connect(client, str(project), address)
    for step in report.steps:
        console.print(f"  {MARKS[step.status]} {step.sentence}", soft_wrap=True)
        if step.remedy:
            console.print(f"     -> {step.remedy}", soft_wrap=True)
    if not report.connected or report.version is None:
        raise DemoError(f"The backend could not be connected; its log:\n{backend.log_tail()}")
    return report.version


def predict_all(
    client: LabelStudioClient, user: LabelStudioUser, project: int, version: str
) -> None:
    """Choose "Retrieve Predictions" for all tasks and wait until each has one."""
    task_ids = user.task_ids(project)
    deadline = time.monotonic() + PREDICTED_WITHIN_S
    with Progress(console=console) as progress, ThreadPoolExecutor(1) as person:
        bar = progress.add_task("Predicting", total=len(task_ids))
        asked = person.submit(user.retrieve_predictions, project)
        ask_again = time.monotonic() + ASK_AGAIN_S
        done = 0
        while done < len(task_ids):
            if asked.done():
                asked.result()  # raises what went wrong in it
                if time.monotonic() > ask_again:
                    asked = person.submit(user.retrieve_predictions, project)
                    ask_again = time.monotonic() + ASK_AGAIN_S
            if time.monotonic() > deadline:
                raise DemoError(f"Only {done} of {len(task_ids)} tasks were predicted in time.")
            time.sleep(1)
            done = len(client.tasks_with_prediction(project, task_ids, version))
            progress.update(bar, completed=done)


def take_picture(
    label_studio: LabelStudioServer, user: LabelStudioUser, project: int, file: Path
) -> None:
    """Open the first image in a browser, as a person would see it, and keep what it shows."""
    from tools.browser import find_browser, log_in, open_page, open_task, save_picture

    program = find_browser()
    if program is None:
        raise DemoError("Chromium is not installed.")
    with open_page(program) as page:
        log_in(page, label_studio.url)
        open_task(page, label_studio.url, project, user.task_ids(project)[0])
        page.wait_for_timeout(3000)  # thumbnails of the other tasks
        save_picture(page, file)
    console.print(f"Saved {file}")


def show_address(label_studio: LabelStudioServer, project: int) -> None:
    """Print where to go and how to log in."""
    lines = [
        f"[bold]{label_studio.url}/projects/{project}/data[/]",
        f"login     {EMAIL}",
        f"password  {PASSWORD}",
        "",
        "Open an image: its cells are outlined. Ctrl-C stops everything.",
    ]
    console.print(Panel("\n".join(lines), title="Label Studio with cell masks", expand=False))


def wait_for_the_end(label_studio: LabelStudioServer, backend: DemoBackend) -> None:
    """Return never, but raise when something ends by itself."""
    while True:
        if not label_studio.is_running:
            raise DemoError(f"Label Studio ended by itself:\n{label_studio.log_tail()}")
        if not backend.is_running:
            raise DemoError(f"The backend ended by itself:\n{backend.log_tail()}")
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
