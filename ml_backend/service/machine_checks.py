"""`doctor`, first half: this machine, its folders, records, network and device."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import httpx

from ml_backend.domain import Component
from ml_backend.errors import BackendError
from ml_backend.labelstudio.rows import BasicAuth
from ml_backend.service.checks import Check, failed, ok, warning
from ml_backend.settings import Settings

GIGABYTE = 1_000_000_000
LITTLE_GB = 5.0  # records and caches still fit, a training or another checkpoint hardly
TOO_LITTLE_GB = 0.5
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def check_data_dir(folder: Path) -> Check:
    """Can records, models and images be written, and is there room for them?"""
    name = "data folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as error:
        return failed(
            name,
            f"{folder} cannot be written ({error.strerror})",
            f"set DATA_DIR to a folder of yours, or: chown -R {os.getuid()} {folder}",
        )
    free = shutil.disk_usage(folder).free / GIGABYTE
    sentence = f"{folder} can be written, {free:.1f} GB are free"
    remedy = "make room, or set DATA_DIR to a folder on a larger disk"
    if free < TOO_LITTLE_GB:
        return failed(name, sentence, remedy)
    return warning(name, sentence, remedy) if free < LITTLE_GB else ok(name, sentence)


def check_database(settings: Settings, probe: Callable[[], None]) -> Check:
    """Can the records be opened and brought up to date?"""
    kind = settings.database_address.partition(":")[0].partition("+")[0]
    try:
        probe()
    except BackendError as error:
        return failed("database", error.message, "correct DATABASE_URL, or start that server")
    return ok("database", f"The records ({kind}) are there and up to date")


def check_redis(settings: Settings, probe: Callable[[], None]) -> list[Check]:
    """Does Redis answer, where it is used?"""
    if settings.redis_url is None:
        return []
    try:
        probe()
    except (BackendError, OSError) as error:
        return [
            failed("redis", f"Redis does not answer ({error})", "correct REDIS_URL, or start it")
        ]
    return [ok("redis", "Redis answers")]


def check_device(wanted: str, *, driver: Path = NVIDIA_DRIVER) -> Check:
    """Is the device there that DEVICE names, and is a GPU left idle by mistake?"""
    import torch

    from ml_backend.engines.device_profile import open_device

    name = "device"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            device = open_device(wanted)
        except BackendError as error:
            return failed(name, error.message, "set DEVICE=auto")
    if device.type == "cuda":
        return ok(name, f"{device}, {torch.cuda.get_device_name(device)}")
    if wanted == "auto" and device.type == "cpu" and driver.exists():
        told = str(said[0].message).partition("\n")[0] if said else "torch sees no CUDA device"
        return warning(
            name,
            f"This machine has an NVIDIA GPU that torch {torch.__version__} cannot use ({told})",
            "update the NVIDIA driver, or install a torch that fits it: "
            "https://pytorch.org/get-started/locally",
        )
    return ok(name, f"{device} with {torch.get_num_threads()} threads")


def check_model(settings: Settings, resolve: Callable[[], Component]) -> Check:
    """Can the network be served that MODEL names? Its weights are read and hashed."""
    return _check_component(
        "model", f"MODEL={settings.model}", resolve, "set MODEL=auto for the built-in network"
    )


def check_toolkit_class(settings: Settings, resolve: Callable[[], Component]) -> Check:
    """Can the class of the label-studio-ml toolkit be imported?"""
    asked = f"TOOLKIT_MODEL={settings.toolkit_model}"
    return _check_component("toolkit class", asked, resolve, "unset TOOLKIT_MODEL to serve MODEL")


def check_embedder(settings: Settings, resolve: Callable[[], Component]) -> Check:
    """Can classes be learned from what EMBEDDER names?"""
    return _check_component(
        "embedder",
        f"EMBEDDER={settings.embedder}",
        resolve,
        "set EMBEDDER=shapes-1 for the built-in one",
    )


def _check_component(
    name: str, setting: str, resolve: Callable[[], Component], remedy: str
) -> Check:
    try:
        component = resolve()
    except BackendError as error:
        return failed(name, error.message, remedy)
    return ok(
        name,
        f"{setting} is {component.name} ({component.architecture}, {component.licence}), "
        f"{component.sha256[:12]}",
    )


def check_backend(url: str, http: httpx.Client, auth: BasicAuth | None) -> Check:
    """Does `ml-backend serve` answer at the address that Label Studio is given?"""
    name = "backend"
    try:
        answer = http.get(f"{url}/health", auth=(auth.user, auth.password) if auth else None)
    except httpx.HTTPError as error:
        return failed(
            name,
            f"Nothing answers at {url} ({error})",
            "start it with `ml-backend serve`; for other machines and containers with HOST=0.0.0.0",
        )
    if answer.status_code == 401:
        return failed(
            name,
            f"{url} refuses BASIC_AUTH_USER and BASIC_AUTH_PASS",
            "start `doctor` with the settings that `serve` has",
        )
    facts = _facts(answer)
    if answer.is_error:
        told = facts.get("message") or f"it answered {answer.status_code}"
        return failed(name, f"{url} is not ready: {told}", "wait, then see its log")
    if "model_version" not in facts:
        return failed(name, f"Another program answers at {url}", "set PORT to a port that is free")
    return ok(name, f"{url} is up on {facts.get('device')} and serves {facts['model_version']}")


def check_engine(settings: Settings, http: httpx.Client) -> list[Check]:
    """Does the engine answer, where it runs apart?"""
    if settings.engine_url is None:
        return []
    headers = {}
    if settings.engine_secret is not None:
        headers["Authorization"] = f"Bearer {settings.engine_secret.get_secret_value()}"
    try:
        answer = http.get(f"{settings.engine_url}/health", headers=headers)
    except httpx.HTTPError as error:
        return [
            failed(
                "engine",
                f"No engine answers at {settings.engine_url} ({error})",
                "start it with `ml-backend engine`, or correct ENGINE_URL",
            )
        ]
    if answer.is_error:
        return [failed("engine", f"The engine answers {answer.status_code}", "see its log")]
    return [ok("engine", f"The engine answers at {settings.engine_url}")]


def _facts(answer: httpx.Response) -> dict[str, object]:
    try:
        facts = answer.json()
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
