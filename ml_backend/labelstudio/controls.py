"""Label config XML -> the controls that masks and classes can feed, and their options.

The SDK's `LabelInterface` would find the tags too, but it costs 0.6 s to import, resolves
entities, knows neither nested `$value` paths nor our rules for defaults, and keeps `model_*`
attributes only on controls (not on the root). So the XML is read here, with defusedxml; the tests
compare what we find with what the SDK finds.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ml_backend.domain import ControlTag, LabelConfig
from ml_backend.errors import ConfigError
from ml_backend.labelstudio.config_reading import ConfigReading
from ml_backend.labelstudio.learning_options import read_root_options

MAX_CONFIG_BYTES = 1_000_000


def parse_label_config(xml: str) -> LabelConfig:
    """Return the controls of a label config that masks or classes can feed, with their options.

    An option on the control wins over one on its Labels tag, that over one on its Image tag, and
    that over one on the root tag.

    Raises:
        ConfigError: when the XML cannot be read, no control can be fed, or options have values
            that are not allowed (all of them are in the message).
    """
    root = _parse_xml(xml)
    reading = ConfigReading(root=root)
    for element in root.iter():
        reading.note_element(element)
    controls = [control for element in reading.shapes if (control := reading.control(element))]
    found = [reading.choices_control(element, controls) for element in reading.choices]
    choices = reading.with_cluster_tags([one for one in found if one is not None])
    choices += reading.label_choices
    reading.note_stray_options()
    reading.problems += read_root_options(root)[1]
    if reading.problems:
        raise ConfigError(f"The label config cannot be used: {'; '.join(reading.problems)}.")
    if not controls and not choices:
        raise ConfigError(_nothing_to_feed(reading))
    return LabelConfig(
        controls=tuple(controls), choices=tuple(choices), warnings=tuple(reading.warnings)
    )


def canonical_config(config: LabelConfig) -> dict[str, Any]:
    """Return a JSON-able mapping of everything in a config that changes predictions.

    Labels that no instance gets are not in it: a new one leaves the predictions as they are. A
    choice that is removed is never answered, so that all choices are in it.
    """
    canonical: dict[str, Any] = {
        "controls": [
            {
                "tag": control.tag.value,
                "name": control.name,
                "to_name": control.to_name,
                "value_key": control.value_key,
                "labels_name": control.labels_name,
                "label": control.label,
                "segmentation": control.segmentation.canonical(),
                "score_threshold": control.score_threshold,
                "max_regions": control.max_regions,
            }
            for control in config.controls
        ]
    }
    if config.choices:  # without them versions stay what they were before there were any
        canonical["choices"] = [
            {
                "name": control.name,
                "to_name": control.to_name,
                "value_key": control.value_key,
                "choices": list(control.choices),
                "multiple": control.multiple,
                "objects_of": control.objects_of,
                "options": control.options.canonical(),
                "cluster_tag": None if control.cluster_tag is None else control.cluster_tag.name,
            }
            for control in config.choices
        ]
    return canonical


def _parse_xml(xml: str) -> Element:
    if len(xml) > MAX_CONFIG_BYTES or len(xml.encode("utf-8", "replace")) > MAX_CONFIG_BYTES:
        raise ConfigError("The label config is larger than 1 MB; remove what is not needed.")
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException:
        raise ConfigError(
            "The label config declares a document type or entities, which is refused; remove the "
            "<!DOCTYPE ...> part."
        ) from None
    except (ParseError, ValueError, LookupError) as error:  # the last two: odd encodings
        raise ConfigError(f"The label config is not well-formed XML ({error}); fix it.") from None
    return root


def _nothing_to_feed(reading: ConfigReading) -> str:
    tags = ", ".join(tag.value for tag in ControlTag)
    if reading.skipped:
        return (
            "The label config has no control left that can be fed, since model_skip is set on "
            "every one; remove it from the control that shall be fed."
        )
    reasons = f" ({' '.join(reading.warnings)})" if reading.warnings else ""
    return (
        "The label config has no control that cell masks or classes can feed"
        f"{reasons}; add one of {tags} or Choices with toName of an Image tag."
    )
