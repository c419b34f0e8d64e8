"""Functions that stand in for the methods of a class: the toolkit's two decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_functions: dict[str, Callable[..., Any]] = {}


def registered(what: Literal["predict", "update"]) -> Callable[..., Any] | None:
    """Return the function that was decorated last, None without."""
    return _functions.get(what)


def predict_fn(function: Function) -> Function:
    """Have a function `(tasks, context, helper, ...)` predict; `helper` is the model."""
    _functions["predict"] = function
    return function


def update_fn(function: Function) -> Function:
    """Have a function `(event, data, helper, ...)` fit; `helper` is the model."""
    _functions["update"] = function
    return function
