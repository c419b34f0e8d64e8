"""How we reach Label Studio's API: the SDK's client, and its failures as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from ml_backend.domain import is_personal_access_token
from ml_backend.errors import LabelStudioError

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

TIMEOUT_S = 30.0
DETAIL_CHARS = 1000

BOTH_GUARDS_OFF = (
    "restart Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false, because "
    "by default it refuses addresses of private networks"
)


def connect_sdk(url: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> LabelStudioBase:
    """Return the SDK's client for the Label Studio at `url`.

    The base class is taken because the extended one imports pandas and nltk: 1.2 s and 120 MB
    instead of 0.4 s and 50 MB. It exchanges and refreshes personal access tokens by itself.
    Nothing is retried: a prediction import that is sent twice stores every row twice.
    """
    from label_studio_sdk.base_client import LabelStudioBase

    return LabelStudioBase(
        base_url=url + "/",  # the slash keeps a path prefix when the SDK refreshes a token
        api_key=api_key,
        timeout=timeout_s,
        max_retries=0,
        # a redirected POST would arrive as a GET; say where it leads instead
        httpx_client=httpx.Client(timeout=timeout_s, follow_redirects=False),
    )


def read_answer(response: httpx.Response) -> Any:
    """Return the JSON of a good answer, None where there is none.

    Raises:
        ApiError: of the SDK, for any other answer.
    """
    from label_studio_sdk.core.api_error import ApiError

    if not response.is_success:
        is_json = "json" in response.headers.get("content-type", "")
        raise ApiError(
            status_code=response.status_code,
            headers=dict(response.headers),
            body=response.json() if is_json else response.reason_phrase,
        )
    return response.json() if response.content else None


@contextmanager
def failures_as_sentences(url: str, api_key: str) -> Iterator[None]:
    """Turn whatever the SDK raises into LabelStudioError with a remedy.

    Raises:
        LabelStudioError
    """
    from label_studio_sdk.core.api_error import ApiError
    from label_studio_sdk.core.parse_error import ParsingError

    try:
        yield
    except ApiError as error:
        raise refused(url, api_key, error.status_code or 0, error.body, error.headers) from error
    except ParsingError as error:
        raise refused(url, api_key, error.status_code or 0, error.body, error.headers) from error
    except httpx.TimeoutException as error:
        raise LabelStudioError(
            f"Label Studio at {url} did not answer in time; look whether it is overloaded"
        ) from error
    except httpx.HTTPError as error:
        raise LabelStudioError(
            f"Label Studio cannot be reached at {url} ({error}); start it or correct "
            "LABEL_STUDIO_URL (inside a container, localhost is the container itself: use the "
            "service's name or host.docker.internal)"
        ) from error
    except ValueError as error:  # an answer that is no JSON
        raise LabelStudioError(
            f"{url} did not answer like Label Studio; correct LABEL_STUDIO_URL"
        ) from error


def refused(
    url: str,
    api_key: str,
    status: int,
    body: Any,
    headers: Mapping[str, str] | None = None,
) -> LabelStudioError:
    """Return the error for an answer that is not 2xx."""
    reason = detail(body)
    if 300 <= status < 400:
        leads_to = {name.lower(): value for name, value in (headers or {}).items()}.get("location")
        text = f"Label Studio at {url} redirects to {leads_to}; set LABEL_STUDIO_URL to that origin"
    elif status == 401 and is_personal_access_token(api_key):
        text = (
            f"Label Studio at {url} refused the personal access token ({reason}); create a new one "
            "under Account & Settings > Personal Access Token and set LABEL_STUDIO_API_KEY"
        )
    elif status == 401:
        text = (
            f"Label Studio at {url} refused the legacy token ({reason}); allow legacy tokens under "
            "Organization > API Tokens Settings, or set LABEL_STUDIO_API_KEY to a personal "
            "access token (Account & Settings > Personal Access Token)"
        )
    elif status == 403 and "reserved" in reason.lower():
        text = f"Label Studio refused the address ({reason}); {BOTH_GUARDS_OFF}"
    elif status == 403:
        text = (
            f"Label Studio does not allow this to the owner of LABEL_STUDIO_API_KEY ({reason}); "
            "use the token of a member with the right to change the project"
        )
    elif status == 404:
        text = f"Label Studio at {url} does not have it ({reason})"
    else:
        text = f"Label Studio at {url} answered {status}: {reason}"
    return LabelStudioError(text, status=status)


def detail(body: Any) -> str:
    """Return the readable part of an error answer, at most `DETAIL_CHARS`."""
    if not isinstance(body, Mapping):
        return str(body)[:DETAIL_CHARS]
    errors = body.get("validation_errors")
    if isinstance(errors, Mapping):
        parts = [
            str(text)
            for texts in errors.values()
            for text in (texts if isinstance(texts, list) else [texts])
        ]
        return re.sub(r"<[^>]*>", "", "; ".join(parts))[
            :DETAIL_CHARS
        ]  # Label Studio puts links in it
    return str(body.get("detail") or dict(body))[:DETAIL_CHARS]
