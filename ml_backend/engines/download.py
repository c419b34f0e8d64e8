"""Cellpose's published weights from its model hub, when someone asks for them. Needs no torch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx

from ml_backend.engines.catalogue import CELLPOSE_MODELS
from ml_backend.errors import ModelNotFound

_CHUNK = 1 << 20  # bytes


def download_cellpose_model(
    name: str,
    *,
    models_dir: Path,
    base_url: str,
    timeout_s: float = 30.0,
    report: Callable[[int, int | None], None] = lambda _arrived, _total: None,
) -> Path:
    """Fetch the published weights of a Cellpose model; an existing file is left as it is.

    Args:
        name: one of `CELLPOSE_MODELS`.
        models_dir: where to put them, as `name`.
        base_url: the model hub's folder, ending in a slash (`networks.cellpose_hub()`).
        timeout_s: without a byte arriving.
        report: told how many bytes have arrived, and of how many if the hub says so.

    Raises:
        ModelNotFound: no such name, or the hub cannot be reached.
    """
    if name not in CELLPOSE_MODELS:
        raise ModelNotFound(f"{name!r} is none of Cellpose's models {', '.join(CELLPOSE_MODELS)}.")
    target = models_dir / name
    if target.is_file():
        return target
    part = None
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=models_dir, prefix=f".{name}.")
        with (
            os.fdopen(descriptor, "wb") as file,
            httpx.stream(
                "GET", base_url + name, follow_redirects=True, timeout=timeout_s
            ) as answer,
        ):
            answer.raise_for_status()
            length = answer.headers.get("content-length", "")
            total = int(length) if length.isdecimal() else None
            for chunk in answer.iter_bytes(_CHUNK):
                file.write(chunk)
                report(file.tell(), total)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except (httpx.HTTPError, OSError) as error:
        raise ModelNotFound(
            f"The weights of {name!r} could not be downloaded from {base_url} ({error}); copy the "
            f"file to {models_dir} on a machine without a connection."
        ) from error
    finally:
        if part is not None:  # also where a person presses Ctrl-C
            Path(part).unlink(missing_ok=True)
    return target
