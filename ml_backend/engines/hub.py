"""Files of repositories on the Hugging Face hub: from the local cache, or downloaded once.

`HF_HUB_OFFLINE`, `HF_HUB_CACHE`, `HF_ENDPOINT` and `HF_TOKEN` are read by the hub's own library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ml_backend.errors import ModelNotFound

TIMEOUT_S: Final = 5.0
"""How long the hub may take to say anything at all before it counts as out of reach."""


def cached_file(
    repository: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
) -> Path | None:
    """Return the first of `files` that the local cache holds of a repository, None without any.

    Never asks the network.

    Args:
        repository: OWNER/NAME.
        files: names in the repository, the most wanted first.
        revision: a branch, tag or commit; None = the main branch as it was last seen.
        cache_dir: the cache; None = where the hub's library keeps it.
    """
    import huggingface_hub  # takes a while, and is needed here only

    for file in files:
        found = huggingface_hub.try_to_load_from_cache(
            repository, file, cache_dir=cache_dir, revision=revision
        )
        if isinstance(found, str):
            return Path(found)
    return None


def fetch_file(
    repository: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """Return the first of `files` that a repository has: from the cache, else downloaded.

    Args:
        repository: OWNER/NAME.
        files: names in the repository, the most wanted first.
        revision: a branch, tag or commit; None = the main branch.
        cache_dir: the cache; None = where the hub's library keeps it.
        timeout_s: how long the hub may stay silent before it counts as out of reach.

    Raises:
        ModelNotFound: there is no such file, or it cannot be fetched now.
    """
    from huggingface_hub import constants, errors

    try:
        cached = cached_file(repository, files, revision=revision, cache_dir=cache_dir)
        if cached is not None:
            return cached
        if constants.HF_HUB_OFFLINE:
            raise ModelNotFound(
                f"{repository} is not in the Hugging Face cache, and HF_HUB_OFFLINE is set. "
                f"{_by_hand(repository)}"
            )
        for file in files:
            found = _download(repository, file, revision, cache_dir, timeout_s)
            if found is not None:
                return found
    except ModelNotFound:
        raise
    except errors.GatedRepoError as error:
        raise ModelNotFound(
            f"{repository} may be downloaded only by those who accepted its licence on the Hugging "
            "Face hub; accept it there and set HF_TOKEN."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        at = f" with the revision {revision}" if revision else ""
        raise ModelNotFound(
            f"The Hugging Face hub has no repository {repository}{at}, or HF_TOKEN may not read it."
        ) from error
    except errors.HFValidationError as error:
        raise ModelNotFound(
            f"{repository!r} is no name of a repository on the hub; write OWNER/NAME."
        ) from error
    except Exception as error:  # the library has changed what it makes requests with, and may again
        raise ModelNotFound(
            f"{repository} is not in the Hugging Face cache, and the hub could not be reached "
            f"({type(error).__name__}). {_by_hand(repository)}"
        ) from error
    raise ModelNotFound(f"The repository {repository} on the hub holds none of {', '.join(files)}.")


def _download(
    repository: str, file: str, revision: str | None, cache_dir: Path | None, timeout_s: float
) -> Path | None:
    """Return the downloaded file, None where the repository has none of that name."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        # asked first without retries: a download tries again for half a minute before it says
        # that there is no network
        huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repository, file, revision=revision), timeout=timeout_s
        )
    except errors.LocalEntryNotFoundError:  # "no connection", in spite of its name and its base
        raise
    except errors.EntryNotFoundError:
        return None
    return Path(
        huggingface_hub.hf_hub_download(
            repository, file, revision=revision, cache_dir=cache_dir, etag_timeout=timeout_s
        )
    )


def _by_hand(repository: str) -> str:
    return (
        f"On a machine with a connection run `hf download {repository} --local-dir FOLDER`, copy "
        "the folder to this one and name it as local-dir:FOLDER."
    )
