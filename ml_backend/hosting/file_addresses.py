"""Which values of task data are addresses of files."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

_LABEL_STUDIOS_OWN = ("upload", "/upload", "/data/upload")
_BUCKETS = ("s3:", "gs:", "azure-blob:")


def is_valid_url(path: str) -> bool:
    """Return whether a text is an address with a scheme and a host."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc)


def is_preload_needed(url: str) -> bool:
    """Return whether a value of task data is a file's address rather than the content itself."""
    return (
        url.startswith((*_LABEL_STUDIOS_OWN, *_BUCKETS))
        or (url.startswith("/data/") and "?d=" in url)
        or is_valid_url(url)
        or os.path.exists(url)
    )
