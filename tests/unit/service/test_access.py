"""Which server gets which token."""

from __future__ import annotations

from ml_backend.domain import LabelStudioAccess
from ml_backend.service.access import choose_access

SETUP = {"setup_hostname": "http://introduced.example:8080/", "setup_token": "from setup"}


def test_the_configured_key_goes_to_the_configured_address_whatever_setup_says() -> None:
    access = choose_access(
        configured_url="http://configured.example",
        configured_token="key",
        setup_allowed=True,
        **SETUP,
    )

    assert access == LabelStudioAccess(origin="http://configured.example", token="key")


def test_without_a_key_the_token_of_setup_goes_to_the_configured_address() -> None:
    access = choose_access(
        configured_url="http://configured.example",
        configured_token=None,
        setup_allowed=False,
        **SETUP,
    )

    assert access == LabelStudioAccess(origin="http://configured.example", token="from setup")


def test_a_server_that_introduced_itself_is_used_when_that_is_allowed() -> None:
    access = choose_access(configured_url=None, configured_token=None, setup_allowed=True, **SETUP)

    assert access == LabelStudioAccess(origin="http://introduced.example:8080", token="from setup")


def test_a_server_that_introduced_itself_is_ignored_when_that_is_not_allowed() -> None:
    access = choose_access(configured_url=None, configured_token=None, setup_allowed=False, **SETUP)

    assert access == LabelStudioAccess(origin=None)
