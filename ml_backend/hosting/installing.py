"""Makes `label_studio_ml` importable in this process, whether the toolkit is installed or not.

An installed 2.x is used as it is, but for the ways out of its base class (`hosting.bound`). Else,
also where it is the 1.0.9 of the package index, whose base class is another, modules of ours stand
in. Nothing of this happens in a process that serves no toolkit class.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import structlog

from ml_backend.hosting.bound import bind

PACKAGE = "label_studio_ml"
STAND_INS = Path(__file__).parent / "compatible"
_ONLY_IN_2 = f"{PACKAGE}.response"

log = structlog.get_logger(__name__)


def install() -> type:
    """Make `label_studio_ml` importable and return its base class; twice does no harm."""
    if is_second_generation_installed():
        base: type = importlib.import_module(f"{PACKAGE}.model").LabelStudioMLBase
        bind(base)
        log.info("toolkit is installed", package=PACKAGE)
        return base
    shown = sys.modules.get(PACKAGE)
    if shown is None or list(getattr(shown, "__path__", ())) != [str(STAND_INS)]:
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        package = types.ModuleType(PACKAGE, "Stands in for the label-studio-ml toolkit 2.x.")
        package.__path__ = [str(STAND_INS)]
        sys.modules[PACKAGE] = package
    stand_in: type = importlib.import_module(f"{PACKAGE}.model").LabelStudioMLBase
    return stand_in


def is_second_generation_installed() -> bool:
    """Return whether the toolkit's 2.x can be imported from where Python looks for packages."""
    loaded = sys.modules.get(PACKAGE)
    if loaded is not None and list(getattr(loaded, "__path__", ())) == [str(STAND_INS)]:
        return False
    try:
        return importlib.util.find_spec(_ONLY_IN_2) is not None
    except ImportError:  # the package itself is missing, or broken
        return False
