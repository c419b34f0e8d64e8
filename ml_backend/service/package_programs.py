"""What is done with the files of a package in processes that do not know this program."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from ml_backend.errors import EngineError

CHECK: Final = Path(__file__).with_name("package_check_program.py")
TRACE: Final = Path(__file__).with_name("torchscript_program.py")
LONGEST_S: Final = 1800.0
FEW: Final = 1  # threads for a small network: with more, they wait for each other most of the time
_LOGGED: Final = 20_000  # characters of what a failed process said
_KEPT_FROM_ENVIRONMENT: Final = (  # the rest, secrets among it, is nobody's business there
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class TracePlan:
    """How a packaged network is written as TorchScript; `torchscript_program` reads it."""

    target: str  # name of the file to write
    architecture: str  # name of the file that builds the network
    weights: str  # name of the file with its state dictionary
    callable: str  # in the architecture file
    arguments: Mapping[str, Any]  # of the callable
    channels: int  # of the input
    least: int  # pixels of the smallest side
    step: int  # pixels between two sizes of a side


class PackagePrograms:
    """Runs them."""

    def require(self) -> None:
        """Check that packages can be tested here.

        Raises:
            EngineError: the packages for it are not installed.
        """
        if importlib.util.find_spec("bioimageio") is None or not _has_core():
            raise EngineError(
                "Packages are tested with bioimageio.core before they are handed out, and it is "
                "not installed; install this package with its extra: pip install '.[export]'."
            )

    def test(self, archive: Path, aside: Path, *, threads: int | None = None) -> None:
        """Test a package with the command `bioimageio test`: its format, its numbers, its sizes.

        Args:
            archive: The package.
            aside: A folder for what the test leaves behind.
            threads: Of the processor; None = as many as there are.

        Raises:
            EngineError: it does not pass; the log has the whole report.
        """
        report = aside / "report.json"
        done = _run(CHECK, [archive, report], aside, threads)
        if done.returncode == 0:
            return
        problems = _problems(report)
        log.error("package failed its test", problems=problems, said=_tail(done))
        first = problems[0] if problems else _tail(done).rpartition("\n")[2]
        raise EngineError(
            f"The package does not pass bioimageio's test and is not handed out: "
            f"{' '.join(first.split())[:500].rstrip('.')}."
        )

    def write_torchscript(self, folder: Path, aside: Path, plan: TracePlan) -> bool:
        """Write the network of a package as TorchScript, where that answers as the network does.

        Args:
            folder: Of the package.
            aside: A folder for what belongs to nobody.
            plan: What to write.

        Returns:
            Whether it was written.
        """
        told = aside / "torchscript.json"
        told.write_text(json.dumps(asdict(plan)), encoding="utf-8")
        done = _run(TRACE, [folder, told], aside, FEW)
        if done.returncode != 0:
            log.warning("no TorchScript", code=done.returncode, said=_tail(done))
        return done.returncode == 0


def _run(
    program: Path, paths: Sequence[Path], aside: Path, threads: int | None
) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in _KEPT_FROM_ENVIRONMENT if name in os.environ}
    environment |= {
        "CUDA_VISIBLE_DEVICES": "",  # the numbers that are promised are those of the CPU
        "BIOIMAGEIO_CACHE_PATH": str(aside / "cache"),
        "CI": "true",  # no progress bars
        "COLUMNS": "200",
    }
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    try:
        return subprocess.run(
            [sys.executable, "-I", "-B", str(program), *(str(path.resolve()) for path in paths)],
            env=environment,
            cwd=aside,  # bioimageio reads a .env there
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(
            f"The package was not tested within {LONGEST_S / 60:.0f} minutes and is not handed "
            "out; try again when this machine has less to do."
        ) from None


def _problems(report: Path) -> list[str]:
    try:
        details = json.loads(report.read_text("utf-8")).get("details", [])
        return [
            f"{'.'.join(map(str, one.get('loc', ())))}: {one.get('msg', '')}".lstrip(": ")
            for detail in details
            for one in detail.get("errors", ())
        ]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    return f"{done.stdout}\n{done.stderr}"[-_LOGGED:].strip()


def _has_core() -> bool:
    return importlib.util.find_spec("bioimageio.core") is not None
