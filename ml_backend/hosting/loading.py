"""Finds and imports the class that TOOLKIT_MODEL names."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_backend.errors import ModelError, ModelNotFound
from ml_backend.hosting.failures import describe
from ml_backend.hosting.installing import install
from ml_backend.hosting.registered import registered

_MOST_SOURCE = 64 * 2**20  # bytes that are hashed


@dataclass(frozen=True, kw_only=True)
class ToolkitClass:
    """A person's own class, imported."""

    name: str
    type: type[Any]
    path: Path  # of its file, resolved
    sha256: str  # of its file and of what that imported from its own folder
    train_events: tuple[str, ...]  # that its fit is called for

    @property
    def folder(self) -> Path:
        """Return the folder of its file."""
        return self.path.parent


def load_class(reference: str) -> ToolkitClass:
    """Import the class of a reference: `path/to/model.py` or `path/to/model.py:ClassName`.

    Its folder comes first where Python looks for modules, as when the toolkit starts it.

    Raises:
        ModelNotFound: there is no such file or class.
        ModelError: it cannot be imported, or several classes could be meant.
    """
    path, wanted = _split(reference)
    base = install()
    module = _import(path)
    found = _class_of(module, base, wanted, path)
    return ToolkitClass(
        name=found.__name__ if found is not base else path.stem,
        type=found,
        path=path,
        sha256=_hash(path),
        train_events=tuple(map(str, getattr(found, "TRAIN_EVENTS", ()))),
    )


def _split(reference: str) -> tuple[Path, str | None]:
    whole = Path(reference).expanduser()
    if whole.is_file():
        return whole.resolve(), None
    file, separator, name = reference.rpartition(":")
    path = Path(file).expanduser()
    if separator and name.isidentifier() and path.is_file():
        return path.resolve(), name
    raise ModelNotFound(
        f"TOOLKIT_MODEL names {reference!r}, and there is no such file; give the path of a "
        "model.py, with :ClassName behind it where it has several classes."
    )


def _import(path: Path) -> ModuleType:
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() == path:
            return loaded
        name = f"toolkit_model_{name}"  # a module of that name is in use
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelNotFound(f"{path} is no Python file; TOOLKIT_MODEL names a model.py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(
            f"{path} cannot be imported ({describe(error, path.parent)}); mend it, or install what "
            "it needs into this environment."
        ) from error
    return module


def _class_of(module: ModuleType, base: type, wanted: str | None, path: Path) -> type[Any]:
    if wanted is not None:
        named = getattr(module, wanted, None)
        if not (inspect.isclass(named) and issubclass(named, base)):
            raise ModelNotFound(
                f"{path} has no class {wanted!r} that inherits from LabelStudioMLBase; name one "
                "that does."
            )
        return named
    classes = [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, base) and found is not base
    ]
    # its own before what it imports, and of those the ones that no other builds on
    classes = [found for found in classes if found.__module__ == module.__name__] or classes
    leaves = [
        found
        for found in dict.fromkeys(classes)
        if not any(issubclass(other, found) and other is not found for other in classes)
    ]
    if len(leaves) == 1:
        return leaves[0]
    if leaves:
        names = ", ".join(sorted(found.__name__ for found in leaves))
        raise ModelError(
            f"{path} has several classes that inherit from LabelStudioMLBase ({names}); put the "
            "one that is meant behind the path, like model.py:ClassName."
        )
    if registered("predict") or registered("update"):
        return base
    raise ModelNotFound(
        f"{path} has no class that inherits from LabelStudioMLBase; TOOLKIT_MODEL names the file "
        "that defines one."
    )


def _hash(path: Path) -> str:
    """Return the hash of a file and of the modules that were imported from its folder."""
    folder = path.parent
    files = {path}
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "/").resolve()
        if file.suffix == ".py" and file.is_relative_to(folder):
            inside = file.relative_to(folder).parts
            if "site-packages" not in inside:
                files.add(file)
    digest = hashlib.sha256()
    size = 0
    for file in sorted(files):
        content = file.read_bytes()
        size += len(content)
        if size > _MOST_SOURCE:
            raise ModelError(
                f"The Python files that {path} imports from its folder are over "
                f"{_MOST_SOURCE // 2**20} MB; keep data in other files."
            )
        digest.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
