"""`make demo-check`: does every task hold one valid prediction of the version we serve?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.demo_samples import has_cells
from tools.label_studio_user import LabelStudioUser


def check_predictions(console: Console, user: LabelStudioUser, project: int, version: str) -> bool:
    """Print a table of all tasks and return whether every one is as it should be."""
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface(str(user.project(project)["label_config"]))
    rows: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for prediction in user.predictions(project):
        rows[int(prediction["task"])].append(prediction)
    table = Table("task", "image", "regions", "score", "version", "verdict")
    all_well = True
    for task in user.task_ids(project):
        image = str(user.open_task(project, task)["data"]["image"]).rpartition("/")[2]
        problem = _problem(interface, rows[task], image, version)
        all_well &= problem is None
        first = rows[task][0] if rows[task] else {"result": [], "score": None}
        table.add_row(
            str(task),
            image,
            str(len(first["result"])),
            "" if first["score"] is None else f"{first['score']:.2f}",
            str(first.get("model_version", "")),
            "ok" if problem is None else f"[red]{problem}[/]",
        )
    console.print(table)
    console.print("[green]All is well.[/]" if all_well else "[red]Not all is well.[/]")
    return all_well


def _problem(
    interface: Any, rows: Sequence[Mapping[str, Any]], image: str, version: str
) -> str | None:
    """Return what is wrong with a task's predictions, None when nothing is."""
    if len(rows) != 1:
        return f"{len(rows)} predictions instead of one"
    prediction = {name: rows[0][name] for name in ("result", "score", "model_version")}
    if prediction["model_version"] != version:
        return f"its version is not {version}"
    errors = interface.validate_prediction(prediction, return_errors=True)
    if errors:
        return str(errors[0])
    if not prediction["result"] and has_cells(image):
        return "no cell was found"
    return None
