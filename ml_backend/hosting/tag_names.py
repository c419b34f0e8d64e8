"""The names of a label config's tags."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from defusedxml.ElementTree import fromstring

from ml_backend.errors import ConfigError

_REPEATED = re.compile(r"\\\{\\\{.*?\\\}\\\}")  # {{idx}} of a Repeater, after re.escape


@lru_cache(maxsize=64)
def known_names(label_config: str) -> Callable[[str], bool]:
    """Return what says whether a label config has a tag of a name.

    Names inside a Repeater stand for many: `{{idx}}` is any text.

    Raises:
        ConfigError: it is no XML.
    """
    try:
        root = fromstring(label_config, forbid_dtd=True)
    except (ValueError, SyntaxError, LookupError) as error:
        raise ConfigError(f"The label config is not well-formed XML ({error}); fix it.") from None
    names = {element.get("name") for element in root.iter()} - {None}
    exact = frozenset(name for name in names if name and "{{" not in name)
    patterns = [
        re.compile(_REPEATED.sub(".+", re.escape(name))) for name in names if name and "{{" in name
    ]

    def is_known(name: str) -> bool:
        return name in exact or any(pattern.fullmatch(name) for pattern in patterns)

    return is_known
