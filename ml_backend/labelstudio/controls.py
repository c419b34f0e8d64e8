"""Label config XML -> the controls that masks can feed, and their options.

The SDK's `LabelInterface` would find the tags too, but it costs 0.6 s to import, resolves
entities, knows neither nested `$value` paths nor our rules for defaults, and keeps `model_*`
attributes only on controls (not on the root). So the XML is read here, with defusedxml; the tests
compare what we find with what the SDK finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ml_backend.domain import Control, ControlTag, LabelConfig, SegmentationOptions
from ml_backend.errors import ConfigError
from ml_backend.labelstudio.config_tags import attribute, read_labels, tag_text, to_names
from ml_backend.labelstudio.learning_options import LEARNING_OPTIONS, read_root_options
from ml_backend.labelstudio.options import (
    OPTIONS,
    model_attributes,
    read_options,
    shown,
    unknown_sentence,
)
from ml_backend.labelstudio.values import parse_value_key

MAX_CONFIG_BYTES = 1_000_000
MAX_CONTROLS = 100

_TAGS = {tag.value.lower(): tag for tag in ControlTag}


def parse_label_config(xml: str) -> LabelConfig:
    """Return the controls of a label config that masks can feed, with their options.

    An option on the control wins over one on its Labels tag, that over one on its Image tag, and
    that over one on the root tag.

    Raises:
        ConfigError: when the XML cannot be read, no control can be fed, or options have values
            that are not allowed (all of them are in the message).
    """
    root = _parse_xml(xml)
    reading = _Reading(root=root)
    for element in root.iter():
        reading.note_element(element)
    controls = [control for element in reading.shapes if (control := reading.control(element))]
    reading.note_stray_options()
    reading.problems += read_root_options(root)[1]
    if reading.problems:
        raise ConfigError(f"The label config cannot be used: {'; '.join(reading.problems)}.")
    if not controls:
        raise ConfigError(_nothing_to_feed(reading))
    return LabelConfig(controls=tuple(controls), warnings=tuple(reading.warnings))


def canonical_config(config: LabelConfig) -> dict[str, Any]:
    """Return a JSON-able mapping of everything in a config that changes predictions.

    Labels that no instance gets are not in it: a new one leaves the predictions as they are.
    """
    return {
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


def _nothing_to_feed(reading: _Reading) -> str:
    tags = ", ".join(tag.value for tag in ControlTag)
    if reading.skipped:
        return (
            "The label config has no control left that cell masks can feed, since model_skip is "
            "set on every one; remove it from the control that shall be fed."
        )
    reasons = f" ({' '.join(reading.warnings)})" if reading.warnings else ""
    return (
        "The label config has no control that cell masks can feed"
        f"{reasons}; add one of {tags} with toName of an Image tag."
    )


@dataclass
class _Reading:
    """What has been seen of a config so far; lives for one call."""

    root: Element
    shapes: list[Element] = field(default_factory=list)
    images: dict[str, Element] = field(default_factory=dict)
    label_tags: dict[str, Element] = field(default_factory=dict)  # Labels, by toName
    optioned: list[Element] = field(default_factory=list)  # those with model_* attributes
    names: set[str] = field(default_factory=set)
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note_element(self, element: Element) -> None:
        kind = str(element.tag).lower()
        if model_attributes(element.attrib):
            self.optioned.append(element)
        if kind == "image":
            self.images.setdefault(attribute(element, "name"), element)
        elif kind == "labels":
            for image in to_names(element):
                self.label_tags.setdefault(image, element)
        elif kind in _TAGS:
            self.shapes.append(element)
            if len(self.shapes) > MAX_CONTROLS:
                raise ConfigError(
                    f"The label config has more than {MAX_CONTROLS} shape controls; remove some."
                )

    def control(self, element: Element) -> Control | None:
        where = tag_text(element)
        image = self._image_of(element, where)
        if image is None:
            return None
        key = self._value_key(image)
        if key is None:
            return None
        tag = _TAGS[str(element.tag).lower()]
        bare = not tag.value.endswith("Labels")
        to_name = attribute(image, "name")
        label_tag = self.label_tags.get(to_name) if bare else element
        values = self._options([element, label_tag, image, self.root])
        if values.get("model_skip", False):
            self.skipped += 1
            return None
        name = self._name(element, where)
        labels = tuple(read_labels(label_tag)) if label_tag is not None else ()
        return Control(
            tag=tag,
            name=name,
            to_name=to_name,
            value_key=key,
            labels=labels,
            labels_name=attribute(label_tag, "name") if bare and label_tag is not None else None,
            label=self._label(where, label_tag, labels, values),
            segmentation=_segmentation(values),
            score_threshold=values.get("model_score_threshold", 0.0),
            max_regions=values.get("model_max_regions"),
        )

    def _name(self, element: Element, where: str) -> str:
        name = attribute(element, "name")
        if not name:
            self.problems.append(f"{where} has no name; give it one")
        elif name in self.names:
            self.problems.append(f"{where} has a name that another tag has already")
        self.names.add(name)
        return name

    def _image_of(self, element: Element, where: str) -> Element | None:
        names = to_names(element)
        images = [self.images[name] for name in names if name in self.images]
        if not images:
            target = shown(",".join(names))
            self.warnings.append(f"{where} has toName={target}, no Image tag, and is not fed.")
            return None
        if len(names) > 1:
            first = shown(attribute(images[0], "name"))
            self.warnings.append(f"{where} has several names in toName; only {first} is fed.")
        return images[0]

    def _value_key(self, image: Element) -> str | None:
        where = tag_text(image)
        if attribute(image, "valueList"):
            text = f"{where} shows a list of images (valueList), which is not supported."
            key = None
        else:
            value = attribute(image, "value")
            key = parse_value_key(value)
            text = f'{where} has value={shown(value)}; it needs a task field, like value="$image".'
        if key is None and text not in self.warnings:
            self.warnings.append(text)
        return key

    def _options(self, tags: list[Element | None]) -> dict[str, Any]:
        """Return the options that hold for a control, from the tags that may carry them."""
        found: dict[str, str] = {}
        where: dict[str, str] = {}
        for tag in tags:
            if tag is None:
                continue
            for name, text in model_attributes(tag.attrib).items():
                if name in OPTIONS and name not in found:
                    found[name], where[name] = text, tag_text(tag)
        values, problems = read_options(found, where)
        self.problems += [problem for problem in problems if problem not in self.problems]
        return values

    def _label(
        self,
        where: str,
        label_tag: Element | None,
        labels: tuple[str, ...],
        values: Mapping[str, Any],
    ) -> str:
        """Return the label that the instances get, "" for a bare tag without Labels."""
        wanted, region_of_interest = values.get("model_label"), values.get("model_roi")
        if label_tag is None:
            if wanted is not None:
                self.problems.append(
                    f"{where} has model_label={shown(wanted)} but no Labels tag with its toName"
                )
            return ""
        dynamic = attribute(label_tag, "value").startswith("$")  # labels come with each task
        allowed = ", ".join(shown(label) for label in labels[:50]) or "none: it has no Label"
        for name in ("model_label", "model_roi"):
            if name in values and values[name] not in labels and not dynamic:
                self.problems.append(f"{where} has {name}={shown(values[name])}; labels: {allowed}")
        if wanted is not None:
            if wanted == region_of_interest:
                self.problems.append(f"{where} has the same label as model_label and model_roi")
            return str(wanted)
        choices = [label for label in labels if label != region_of_interest]
        if not choices:
            advice = "set model_label" if dynamic else "add a Label tag"
            self.problems.append(f"{where} has no label for the cells; {advice}")
        return choices[0] if choices else ""

    def note_stray_options(self) -> None:
        """Warn of options that nobody knows or that stand where nobody reads them."""
        carriers = {id(self.root)}
        carriers.update(id(tag) for tag in (*self.shapes, *self.images.values()))
        carriers.update(id(tag) for tag in self.label_tags.values())
        for element in self.optioned:
            where = tag_text(element)
            for name in model_attributes(element.attrib):
                if name in LEARNING_OPTIONS:
                    if element is not self.root:
                        self.warnings.append(
                            f"{where} has the option {name}, which is ignored there; put it on "
                            "the root tag."
                        )
                elif name not in OPTIONS:
                    known = (*OPTIONS, *LEARNING_OPTIONS)
                    self.warnings.append(unknown_sentence(where, name, known))
                elif id(element) not in carriers:
                    self.warnings.append(
                        f"{where} has the option {name}, which is ignored there; put it on a "
                        "control, its Image tag or the root tag."
                    )


def _segmentation(values: Mapping[str, Any]) -> SegmentationOptions:
    names = {
        "model": "model_name",
        "diameter": "model_diameter",
        "flow_threshold": "model_flow_threshold",
        "cellprob_threshold": "model_cellprob_threshold",
        "iterations": "model_iterations",
        "min_size": "model_min_size",
        "clahe": "model_clahe",
        "plane": "model_plane",
        "channels": "model_channels",
    }
    given = {ours: values[name] for ours, name in names.items() if name in values}
    return SegmentationOptions(**given)
