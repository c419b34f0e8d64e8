"""What a program may say of how its images are segmented, and how values from outside are read.

One table for JSON, forms and the API's description. Names and defaults are those of the reference
service; `min_size`, `score_threshold`, `plane`, `channels` and `format` are ours besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ml_backend.domain import SegmentationOptions
from ml_backend.errors import BadRequest
from ml_backend.formats.mask_files import MaskFormat

AUTO: Final = "auto"
IN_JSON: Final = "json"
"""The answer that has everything in one JSON text, instead of files."""

_LONGEST_TEXT: Final = 2000
_SHOWN_CHARS: Final = 100
_NOTHING: Final = ("", "null", "none")
_YES: Final = ("true", "1", "yes", "on")
_NO: Final = ("false", "0", "no", "off")


@dataclass(frozen=True, kw_only=True)
class InferenceParameters:
    """How images are segmented and what is answered."""

    artifact: str | None = None
    model: str = AUTO
    options: SegmentationOptions = field(default_factory=SegmentationOptions)
    score_threshold: float = 0.0  # 0..1; instances that score lower are left out
    with_flows: bool = False
    nested_lists: bool = False  # arrays as lists of lists instead of base64
    answer: MaskFormat | None = None  # None = JSON


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """Something that a caller may say."""

    name: str
    default: Any
    allowed: str  # which values, in words
    meaning: str  # a sentence
    check: Callable[[Any], Any]  # value as JSON has it -> as we use it; ValueError: not allowed
    schema: Mapping[str, Any]  # as OpenAPI describes it


def _number(value: Any, *, low: float, above: bool = False, high: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    number = float(value) if abs(value) < 1e300 else math.inf  # a whole number can be too long
    if not math.isfinite(number) or number < low or number > high or (above and number == low):
        raise ValueError
    return number


def _whole(value: Any, *, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_TEXT:
        raise ValueError
    if not value.isprintable():
        raise ValueError
    return value


def _channels(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 3:
        raise ValueError
    return tuple(_whole(one, low=0, high=2**31 - 1) for one in value)


def _answer(value: Any) -> MaskFormat | None:
    return None if value == IN_JSON else MaskFormat(value)


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


_FORMATS: Final = (IN_JSON, *(kind.value for kind in MaskFormat))
_MOST: Final = 2**31 - 1

PARAMETERS: Final = (
    Parameter(
        name="artifact",
        default=None,
        allowed="a text",
        meaning="A known dataset or a folder of DATA_ROOTS, which image_paths are relative to.",
        check=_or_none(_text),
        schema={"type": ["string", "null"]},
    ),
    Parameter(
        name="model",
        default=AUTO,
        allowed="the name of a model",
        meaning=(
            "auto (what MODEL names), a built-in or trained model, the id of a session that made "
            "one, or the path of a checkpoint in a folder of DATA_ROOTS."
        ),
        check=_text,
        schema={"type": "string"},
    ),
    Parameter(
        name="diameter",
        default=None,
        allowed="a number of pixels above 0, or null",
        meaning="Of the objects in pixels; null = estimated for each image.",
        check=_or_none(lambda value: _number(value, low=0, above=True, high=100_000)),
        schema={"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 100_000},
    ),
    Parameter(
        name="flow_threshold",
        default=0.4,
        allowed="a number from 0 upwards",
        meaning="Largest flow error of an object; 0 = any.",
        check=lambda value: _number(value, low=0),
        schema={"type": "number", "minimum": 0},
    ),
    Parameter(
        name="cellprob_threshold",
        default=0.0,
        allowed="a number",
        meaning="Smallest cell probability of an object's pixels, as a logit.",
        check=lambda value: _number(value, low=-math.inf),
        schema={"type": "number"},
    ),
    Parameter(
        name="niter",
        default=None,
        allowed="a whole number from 1 to 100000, or null",
        meaning="Steps along the flows; null = from the diameter.",
        check=_or_none(lambda value: _whole(value, low=1, high=100_000)),
        schema={"type": ["integer", "null"], "minimum": 1, "maximum": 100_000},
    ),
    Parameter(
        name="min_size",
        default=15,
        allowed="a whole number of pixels from 0 upwards",
        meaning="Smallest object in pixels.",
        check=lambda value: _whole(value, low=0, high=_MOST),
        schema={"type": "integer", "minimum": 0, "maximum": _MOST},
    ),
    Parameter(
        name="score_threshold",
        default=0.0,
        allowed="a number from 0 to 1",
        meaning="Smallest score of an object.",
        check=lambda value: _number(value, low=0, high=1),
        schema={"type": "number", "minimum": 0, "maximum": 1},
    ),
    Parameter(
        name="return_flows",
        default=False,
        allowed="true or false",
        meaning="Whether flows, cell probability and final positions are answered, too.",
        check=_truth,
        schema={"type": "boolean"},
    ),
    Parameter(
        name="json_safe",
        default=False,
        allowed="true or false",
        meaning="Whether arrays in JSON are nested lists instead of NPY files in base64.",
        check=_truth,
        schema={"type": "boolean"},
    ),
    Parameter(
        name="enable_clahe",
        default=False,
        allowed="true or false",
        meaning="Whether the contrast is equalised first (clip limit 3, 16 x 16 tiles).",
        check=_truth,
        schema={"type": "boolean"},
    ),
    Parameter(
        name="plane",
        default=None,
        allowed="a whole number from 0 upwards, or null",
        meaning="Of a stack, 0 = first; null = the first in time, the middle of all else.",
        check=_or_none(lambda value: _whole(value, low=0, high=_MOST)),
        schema={"type": ["integer", "null"], "minimum": 0, "maximum": _MOST},
    ),
    Parameter(
        name="channels",
        default=None,
        allowed="a list of one to three whole numbers from 0 upwards, or null",
        meaning="Channels to look at, 0 = first; null = the first three.",
        check=_or_none(_channels),
        schema={
            "type": ["array", "null"],
            "items": {"type": "integer", "minimum": 0, "maximum": _MOST},
            "minItems": 1,
            "maxItems": 3,
        },
    ),
    Parameter(
        name="format",
        default=IN_JSON,
        allowed=f"one of {', '.join(_FORMATS)}",
        meaning="Of the answer.",
        check=_answer,
        schema={"type": "string", "enum": list(_FORMATS)},
    ),
)

_BY_NAME: Final = {parameter.name: parameter for parameter in PARAMETERS}


def read_parameters(given: Mapping[str, Any]) -> InferenceParameters:
    """Return the parameters that a caller gives, as JSON has them; others have their defaults.

    Raises:
        BadRequest: one is unknown or not allowed.
    """
    unknown = next((name for name in given if name not in _BY_NAME), None)
    if unknown is not None:
        raise BadRequest(
            f"There is no parameter {unknown[:_SHOWN_CHARS]!r}; there are {', '.join(_BY_NAME)}."
        )
    values = {
        parameter.name: _checked(parameter, given.get(parameter.name, parameter.default))
        for parameter in PARAMETERS
    }
    return InferenceParameters(
        artifact=values["artifact"],
        model=values["model"],
        options=SegmentationOptions(
            diameter=values["diameter"],
            flow_threshold=values["flow_threshold"],
            cellprob_threshold=values["cellprob_threshold"],
            iterations=values["niter"],
            min_size=values["min_size"],
            clahe=values["enable_clahe"],
            plane=values["plane"],
            channels=values["channels"],
        ),
        score_threshold=values["score_threshold"],
        with_flows=values["return_flows"],
        nested_lists=values["json_safe"],
        answer=values["format"],
    )


def read_form_fields(fields: Iterable[tuple[str, str]]) -> InferenceParameters:
    """Return the parameters in the fields of a form, where every value is a text.

    Raises:
        BadRequest: one is unknown, not allowed, or given twice.
    """
    given: dict[str, Any] = {}
    for name, text in fields:
        if name in given:
            raise BadRequest(f"{name[:_SHOWN_CHARS]} is given twice; give it once.")
        given[name] = _from_text(name, text)
    return read_parameters(given)


def _from_text(name: str, text: str) -> Any:
    parameter = _BY_NAME.get(name)
    if parameter is None:
        return text  # refused by its name
    kinds = parameter.schema["type"]
    word = text.strip().lower()
    if "null" in kinds and word in _NOTHING:
        return None
    if "string" in kinds:
        return text
    if kinds == "boolean":
        return True if word in _YES else False if word in _NO else text
    if "array" in kinds:
        return [_to_number(part) for part in word.strip("[]").split(",")]
    return _to_number(word)


def _to_number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text  # refused as what it is


def _checked(parameter: Parameter, value: Any) -> Any:
    try:
        return parameter.check(value)
    except (ValueError, TypeError, OverflowError):
        shown = f"{value!r}"[:_SHOWN_CHARS]
        raise BadRequest(f"{parameter.name} is {shown}; it must be {parameter.allowed}.") from None
