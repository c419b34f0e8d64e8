"""What `make` asks before it downloads: is this Python right, is there room on the disk?

Runs on any Python 3 without a package installed.
"""

import argparse
import importlib.util
import platform
import shutil
import sys
from pathlib import Path

GIGABYTE = 1e9
ROOT = Path(__file__).resolve().parents[1]
# name of the environment: (what it holds, gigabytes on Linux, gigabytes elsewhere)
ENVIRONMENTS = {
    ".venv": ("PyTorch, Cellpose and the backend", 9, 3),
    ".venv-label-studio": ("Label Studio", 2, 2),
}
SPARE = 1  # gigabytes, for caches and records


def main(arguments=None):
    """Return the exit code: 0 when all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python-only", action="store_true")
    parser.add_argument("--environment", choices=sorted(ENVIRONMENTS))
    options = parser.parse_args(arguments)
    problem = python_problem()
    if problem is None and not options.python_only:
        problem = announce(options.environment)
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    return 0


def python_problem(version=sys.version_info[:2]):
    """Return a sentence about this Python, or None when it will do."""
    name = f"{version[0]}.{version[1]}"
    if not (3, 11) <= version < (3, 14):
        return f"Python 3.11, 3.12 or 3.13 is needed, and this is {name}."
    if importlib.util.find_spec("ensurepip") is None:
        return f"Python's venv module is incomplete: apt-get install python{name}-venv"
    return None


def announce(environment, root=ROOT, free_gb=None):
    """Say what is about to be downloaded; return a sentence when the disk is too full."""
    missing = [name for name in ENVIRONMENTS if not (root / name / ".installed").exists()]
    if environment is not None and environment not in missing:
        return None  # only brought up to date
    free = shutil.disk_usage(root).free / GIGABYTE if free_gb is None else free_gb
    column = 1 if platform.system() == "Linux" else 2
    needed = sum(ENVIRONMENTS[name][column] for name in missing) + SPARE
    if free < needed:
        return (
            f"{needed} GB of free disk are needed in {root} and {free:.1f} GB are free; make "
            "room, or clone the repository to a larger disk."
        )
    name = environment or missing[0]
    holds, size = ENVIRONMENTS[name][0], ENVIRONMENTS[name][column]
    print(
        f"Downloading {holds} into {name}, once (up to {size} GB on disk, {free:.0f} GB are free)."
    )
    return None


if __name__ == "__main__":
    sys.exit(main())
