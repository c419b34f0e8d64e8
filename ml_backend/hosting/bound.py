"""The methods of the toolkit's base class that lead outside: to values and to files.

Ours inherits them; the base class of an installed toolkit is given them, so that values lie in the
records, where the web process and the trainer see them, and files come through our guarded cache.
"""

from __future__ import annotations

from typing import Any

from ml_backend.hosting.ports import ports, project_of


class Bound:
    """`get`, `set`, `has` and `get_local_path`."""

    def get(self, key: str) -> str | None:
        """Return what the class has set for this project, None where there is nothing."""
        return ports().values.get(project_of(self), key)

    def set(self, key: str, value: str) -> None:
        """Keep a text for this project: every process and the next start finds it.

        Raises:
            ValueError: it is no text, as in the toolkit.
            ToolkitError: it is too long.
        """
        if not isinstance(value, str):
            raise ValueError(
                f"set({key!r}, ...) takes a text and got {type(value).__name__}; json.dumps it."
            )
        ports().values.set(project_of(self), key, value)

    def has(self, key: str) -> bool:
        """Return whether there is something under a key."""
        return self.get(key) is not None

    def get_local_path(
        self,
        url: str,
        project_dir: Any = None,
        ls_host: Any = None,
        ls_access_token: Any = None,
        task_id: int | None = None,
        *_: Any,
        **__: Any,
    ) -> str:
        """Return the path of a task's file, downloaded where it is not at hand.

        Where Label Studio is and with which token it is asked is this backend's setting, so that
        `ls_host` and `ls_access_token` have no effect; nor has `project_dir`.

        Raises:
            ImageError: it cannot be had.
        """
        del project_dir, ls_host, ls_access_token
        return str(ports().fetch(project_of(self), url, task_id))


METHODS = ("get", "set", "has", "get_local_path")


def bind(base: type) -> None:
    """Give the base class of an installed toolkit our ways out."""
    for name in METHODS:
        setattr(base, name, getattr(Bound, name))
